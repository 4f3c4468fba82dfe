"""The roofline: ceilings from the datasheet and measured, and work on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.arithmetic.roofline import Ceilings
from inferlab.plots.style import COLOURS, GREY, log2_axis, new_figure, source_note

MARKERS = "osD^vP"


@dataclass(frozen=True)
class Dot:
    """One piece of measured work on a roofline.

    Attributes:
        group: dots of a group share colour and legend entry and are joined by a line.
        intensity: FLOP/B.
        flops_per_s: achieved.
        label: written beside the dot, such as the batch size; empty for none.
    """

    group: str
    intensity: float
    flops_per_s: float
    label: str = ""


def roofline(
    dots: Sequence[Dot],
    measured: Ceilings,
    datasheet: Ceilings | None = None,
    *,
    title: str = "Roofline",
    note: str = "",
) -> Figure:
    """Work against two roofs: solid is measured on this device, dashed is the datasheet's."""
    figure, axes = new_figure(height=4.8)
    low = min([0.5, *(dot.intensity / 2 for dot in dots)])
    high = max([4 * measured.ridge, *(dot.intensity * 2 for dot in dots)])
    span = np.geomspace(low, high, 200)
    if datasheet:
        _roof(axes, span, datasheet, "--", GREY, "数据手册")
    _roof(axes, span, measured, "-", "black", "实测上限")
    axes.axvline(measured.ridge, color=GREY, linewidth=0.8, linestyle=":")
    ridge = f"ridge {measured.ridge:.0f} FLOP/B"
    axes.text(measured.ridge * 0.93, 0.52, ridge, transform=axes.get_xaxis_transform(), fontsize=8,
              color=GREY, rotation=90, va="center", ha="right")  # fmt: skip
    bottom = min((dot.flops_per_s for dot in dots), default=1e12) / 2
    for place, group in enumerate(dict.fromkeys(dot.group for dot in dots)):
        _group(axes, [dot for dot in dots if dot.group == group], group, place)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_ylim(bottom=bottom)
    axes.set_xlabel("算术强度（FLOP/B）")
    axes.set_ylabel("FLOP/s")
    axes.set_title(title, loc="left")
    axes.legend(loc="lower right", fontsize=8.5)
    source_note(figure, note)
    return figure


def _roof(axes: Axes, span: np.ndarray, ceilings: Ceilings, line: str, colour: str, name: str):
    roof = np.minimum(ceilings.flops_per_s, span * ceilings.bytes_per_s)
    tera_flops, giga_bytes = ceilings.flops_per_s / 1e12, ceilings.bytes_per_s / 1e9
    label = f"{name}：{tera_flops:.3g} TFLOP/s，{giga_bytes:,.0f} GB/s"
    axes.plot(span, roof, line, color=colour, linewidth=1.4, label=label)


def _group(axes: Axes, dots: Sequence[Dot], name: str, place: int) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    x, y = [dot.intensity for dot in dots], [dot.flops_per_s for dot in dots]
    axes.plot(x, y, marker=marker, color=colour, linewidth=0.8, markersize=5, label=name)
    for dot in dots:
        if dot.label:
            where, offset = (dot.intensity, dot.flops_per_s), (4, -9 if place < 2 else 6)
            axes.annotate(dot.label, where, offset, textcoords="offset points", fontsize=7,
                          color=colour)  # fmt: skip


def share_of_limit(
    groups: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, title: str, note: str = ""
) -> Figure:
    """Measured ÷ roofline over batch or length: one line a group of (x, share)."""
    figure, axes = new_figure()
    for place, (name, points) in enumerate(groups.items()):
        x, share = zip(*points, strict=True)
        axes.plot(x, [100 * value for value in share], marker=MARKERS[place % len(MARKERS)],
                  markersize=5, label=name)  # fmt: skip
    axes.axhline(100, color="black", linewidth=1)
    log2_axis(axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel("实测 ÷ 上限（%）")
    axes.set_ylim(0, 115)
    axes.set_title(title, loc="left")
    axes.legend(fontsize=8.5)
    source_note(figure, note)
    return figure
