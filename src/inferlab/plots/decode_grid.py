"""Time of a decode step over batch and context: the roofline's prediction against measurement."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.plots.style import (
    COLOURS,
    interval_bars,
    log2_axis,
    new_figure,
    plain_log_ticks,
    source_note,
)
from inferlab.records.schema import Figure as Measured


def decode_grid(figures: Sequence[Measured], *, note: str = "") -> Figure:
    """Left: step time over batch, a colour a context, measured solid and predicted dashed. Right:
    predicted ÷ measured - 1 of each point, in per cent.

    Args:
        figures: `step_ms` and `predicted_ms` with labels `batch` and `context`, as
            `measure.decode_grid` gives them; points without a prediction are left out.
    """
    table = {
        (f.labels["context"], f.labels["batch"], f.name): f
        for f in figures
        if f.name in ("step_ms", "predicted_ms")
    }
    contexts = sorted({context for context, _, _ in table})
    batches = sorted({batch for _, batch, _ in table})
    figure, (left, right) = new_figure(2, width=10.2, height=4.2)
    errors = np.full((len(contexts), len(batches)), np.nan)
    for row, context in enumerate(contexts):
        both = [
            (
                batch,
                table.get((context, batch, "step_ms")),
                table.get((context, batch, "predicted_ms")),
            )
            for batch in batches
        ]
        points = [(batch, seen, told) for batch, seen, told in both if seen and told]
        _line(left, points, COLOURS[row % len(COLOURS)], context)
        for batch, measured, predicted in points:
            errors[row, batches.index(batch)] = 100 * (predicted.mean / measured.mean - 1)
    log2_axis(left)
    left.set_yscale("log")
    plain_log_ticks(left.yaxis)
    left.set_xlabel("batch")
    left.set_ylabel("一步 decode（ms）")
    left.set_title("实线实测，虚线 roofline 预测", loc="left", fontsize=10)
    left.legend(fontsize=8.5)
    _errors(right, errors, contexts, batches)
    source_note(figure, note)
    return figure


def _line(
    axes: Axes, points: Sequence[tuple[int, Measured, Measured]], colour: str, context: int
) -> None:
    x = [batch for batch, _, _ in points]
    measured = [each for _, each, _ in points]
    axes.errorbar(x, [each.mean for each in measured], interval_bars(measured), marker="o",
                  markersize=4, capsize=2, color=colour, label=f"上下文 {context:,}")  # fmt: skip
    axes.plot(x, [predicted.mean for _, _, predicted in points], "--", color=colour, linewidth=1)


def _errors(
    axes: Axes, errors: np.ndarray, contexts: Sequence[int], batches: Sequence[int]
) -> None:
    axes.imshow(np.abs(errors), cmap="YlOrBr", vmin=0, vmax=100, aspect="auto")
    for row, column in np.argwhere(~np.isnan(errors)):
        value = errors[row, column]
        axes.text(column, row, f"{value:+.0f}%", ha="center", va="center", fontsize=9,
                  color="white" if abs(value) > 60 else "black")  # fmt: skip
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_yticks(range(len(contexts)), [f"{context:,}" for context in contexts])
    axes.set_xlabel("batch")
    axes.set_ylabel("上下文（token）")
    axes.set_title("预测 ÷ 实测 − 1（负：实测更慢）", loc="left", fontsize=10)
    axes.grid(visible=False)
