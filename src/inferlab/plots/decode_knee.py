"""Where a decode step leaves the bandwidth roof: measured, against the roofline's batch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from inferlab.measure.knee import find_knee
from inferlab.measure.statistics import mean_interval
from inferlab.plots.style import COLOURS, GREY, interval_bars, new_figure, source_note
from inferlab.records.schema import Figure as Measured


def decode_knee(figures: Sequence[Measured], predicted: float | None, *, note: str = "") -> Figure:
    """Step time over batch, a colour a context, with the two lines that fit each; the knee's 95 %
    interval over the repeats is shaded, the roofline's batch dotted.

    Args:
        figures: `step_ms` with labels `batch` and `context`, as `measure.decode_grid` gives them.
        predicted: batch at which the linear layers become compute-bound; None if they never do.

    Raises:
        LabError: too few batches of a context.
    """
    figure, axes = new_figure(width=8.2, height=4.6)
    steps = [f for f in figures if f.name == "step_ms"]
    for place, context in enumerate(sorted({f.labels["context"] for f in steps})):
        colour = COLOURS[place % len(COLOURS)]
        points = sorted((f for f in steps if f.labels["context"] == context),
                        key=lambda f: f.labels["batch"])  # fmt: skip
        batches = [f.labels["batch"] for f in points]
        repeats = min(len(f.values) for f in points)
        each = [find_knee(batches, [f.values[i] for f in points]).batch for i in range(repeats)]
        where, whole = mean_interval(each), find_knee(batches, [f.mean for f in points])
        between = f"（{where.low:.0f}–{where.high:.0f}）" if repeats > 1 else ""
        axes.errorbar(
            batches, [f.mean for f in points], interval_bars(points), fmt="o", markersize=4,
            capsize=2, color=colour,
            label=f"上下文 {context:,}：拐点 batch {where.mean:.0f}{between}；"
            f"每多一个序列 {1e3 * whole.slope_ms:.0f} → "
            f"{1e3 * (whole.slope_ms + whole.steeper_ms):.0f} µs",
        )  # fmt: skip
        line = np.linspace(0, batches[-1], 400)
        axes.plot(line, whole.step_ms(line), color=colour, linewidth=1)
        if repeats > 1:
            axes.axvspan(where.low, where.high, color=colour, alpha=0.15, linewidth=0)
    if predicted:
        axes.axvline(predicted, color=GREY, linestyle=":", linewidth=1.2,
                     label=f"roofline：线性层从 batch {predicted:.0f} 起等算力")  # fmt: skip
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_xlabel("batch")
    axes.set_ylabel("一步 decode（ms）")
    axes.set_title("decode 在哪里离开带宽上限（点：实测；线：两段直线）", loc="left")
    axes.legend(loc="upper left", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="none")
    source_note(figure, note)
    return figure
