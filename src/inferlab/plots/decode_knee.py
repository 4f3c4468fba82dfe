"""Where a decode step leaves the bandwidth roof: measured, against the roofline's batch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from inferlab.measure.knee import find_knee, knee_range
from inferlab.plots.style import COLOURS, GREY, interval_bars, new_figure, source_note
from inferlab.records.schema import Figure as Measured


def decode_knee(figures: Sequence[Measured], predicted: float | None, *, note: str = "") -> Figure:
    """Step time over batch, a colour a context, with the two lines that fit each; where the knee
    goes when any one batch is left out is shaded, the roofline's batch dotted.

    Args:
        figures: `step_ms` with labels `batch` and `context`, as `measure.decode_grid` gives them.
        predicted: batch at which the linear layers become compute-bound; None if they never do.

    Raises:
        LabError: too few batches of a context, or no knee.
    """
    figure, axes = new_figure(width=8.2, height=4.6)
    steps = [f for f in figures if f.name == "step_ms"]
    for place, context in enumerate(sorted({f.labels["context"] for f in steps})):
        colour = COLOURS[place % len(COLOURS)]
        points = sorted((f for f in steps if f.labels["context"] == context),
                        key=lambda f: f.labels["batch"])  # fmt: skip
        batches, means = [f.labels["batch"] for f in points], [f.mean for f in points]
        found, (low, high) = find_knee(batches, means), knee_range(batches, means)
        axes.errorbar(
            batches, means, interval_bars(points), fmt="o", markersize=4, capsize=2, color=colour,
            label=f"上下文 {context:,}：拐点 batch {found.batch:.0f}"
            f"（去掉一点 {low:.0f}–{high:.0f}）；"
            f"每多一个序列 {1e3 * found.slope_ms:.0f} → "
            f"{1e3 * (found.slope_ms + found.steeper_ms):.0f} µs",
        )  # fmt: skip
        line = np.linspace(0, batches[-1], 400)
        axes.plot(line, found.step_ms(line), color=colour, linewidth=1)
        axes.axvspan(low, high, color=colour, alpha=0.12, linewidth=0)
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
