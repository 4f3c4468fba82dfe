"""A running engine's prefill and decode rates against the roofline's prediction."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from inferlab.arithmetic import roofline
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings, RooflinePoint
from inferlab.measure.engine_sweep import SweepPoint
from inferlab.plots.style import BLUE, GREEN, RED, log2_axis, new_figure, source_note


def prefill_limits(
    points: Sequence[SweepPoint], shape: ModelShape, ceilings: Ceilings
) -> list[RooflinePoint]:
    """The roofline's times of each prefill point."""
    return [roofline.prefill(shape, 1, p.size).total.against(ceilings) for p in points]


def decode_limits(
    points: Sequence[SweepPoint], shape: ModelShape, ceilings: Ceilings
) -> list[RooflinePoint]:
    """The roofline's times of each decode point."""
    return [roofline.decode(shape, p.size, int(p.context)).total.against(ceilings) for p in points]


def engine_sweeps(
    prefill: Sequence[SweepPoint],
    decode: Sequence[SweepPoint],
    shape: ModelShape,
    ceilings: Ceilings,
    note: str,
) -> Figure:
    """Two panels: milliseconds of a prefill over length, of a decode step over batch."""
    figure, panels = new_figure(2, width=9.6, height=4.0)
    drawn = [
        (panels[0], prefill, prefill_limits(prefill, shape, ceilings), "prompt 长度", "prefill"),
        (panels[1], decode, decode_limits(decode, shape, ceilings), "batch", "一步 decode"),
    ]
    for axes, points, limits, x_label, title in drawn:
        x = [point.size for point in points]
        mean = [1e3 * point.seconds.mean for point in points]
        half = [1e3 * point.seconds.half_width for point in points]
        axes.errorbar(
            x, mean, half, marker="o", markersize=4, capsize=2, color=BLUE, label="引擎实测"
        )
        axes.plot(x, [1e3 * limit.compute_s for limit in limits], "--", color=RED, label="算力下限")
        axes.plot(x, [1e3 * limit.memory_s for limit in limits], ":", color=GREEN, label="带宽下限")
        log2_axis(axes)
        axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel("ms")
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(fontsize=8.5)
    source_note(figure, note)
    return figure
