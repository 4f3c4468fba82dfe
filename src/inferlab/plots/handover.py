"""The handover of the KV cache over the prompt's length: its time, its rate, and the link's."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.plots.style import (
    BLUE,
    GREEN,
    GREY,
    RED,
    interval_bars,
    log2_axis,
    new_figure,
    source_note,
)
from inferlab.records.schema import Figure as Measured


def handover(
    figures: Sequence[Measured], *, link_bytes_per_s: float | None = None, note: str = ""
) -> Figure:
    """Left the milliseconds of the handover beside TTFT, right the rate beside the link's.

    Args:
        figures: of `measure.handover`.
        link_bytes_per_s: what a plain copy between the two devices reaches.
    """
    drawing, (left, right) = new_figure(2, 1, width=9.6, height=3.6)
    for name, color, label in (("ttft_ms", GREY, "TTFT"), ("handover_ms", BLUE, "其中 KV 交接")):
        _line(left, _by_prompt(figures, name), 1.0, color, label)
    left.set_yscale("log")
    left.set_ylabel("ms")
    left.set_title("交接占首 token 的多少", loc="left")
    _line(right, _by_prompt(figures, "handover_bytes_per_s"), 1e-9, GREEN, "NIXL 读 KV")
    if link_bytes_per_s:
        right.axhline(link_bytes_per_s / 1e9, color=RED, linewidth=1, label="链路上的普通拷贝")
    right.set_ylim(bottom=0)
    right.set_ylabel("GB/s")
    right.set_title("交接有多快", loc="left")
    for axes in (left, right):
        log2_axis(axes)
        axes.set_xlabel("prompt（token）")
        axes.legend(fontsize=8.5)
    source_note(drawing, note)
    return drawing


def _line(axes: Axes, found: Sequence[Measured], scale: float, color: str, label: str) -> None:
    axes.errorbar(
        [f.labels["prompt"] for f in found], [f.mean * scale for f in found],
        yerr=interval_bars(found) * scale, color=color, marker="o", markersize=4, capsize=2,
        label=label,
    )  # fmt: skip


def _by_prompt(figures: Sequence[Measured], name: str) -> list[Measured]:
    return sorted((f for f in figures if f.name == name), key=lambda f: f.labels["prompt"])
