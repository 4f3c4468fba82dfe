"""The handover of the KV cache over the prompt's length: its time, its rate, and the link's."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    interval_bars,
    log2_axis,
    new_figure,
    source_note,
)
from inferlab.records.schema import Figure as Measured

STATES = {"fresh": "，缓存还新", "used": "，缓存跑过一圈"}


def handover(
    figures: Sequence[Measured], *, link_bytes_per_s: float | None = None, note: str = ""
) -> Figure:
    """Left the milliseconds of the handover beside TTFT, right the rate beside the link's.

    Args:
        figures: of `measure.handover`.
        link_bytes_per_s: what a plain copy between the two devices reaches.
    """
    drawing, (left, right) = new_figure(2, 1, width=9.6, height=3.6)
    _line(left, _by_prompt(figures, "ttft_ms", _states(figures)[0]), 1.0, GREY, "TTFT")
    for state, color in zip(_states(figures), (BLUE, ORANGE), strict=False):
        label = f"KV 交接{STATES.get(state or '', '')}"
        _line(left, _by_prompt(figures, "handover_ms", state), 1.0, color, label)
        _line(right, _by_prompt(figures, "handover_bytes_per_s", state), 1e-9, color, label)
    left.set_yscale("log")
    left.set_ylabel("ms")
    left.set_title("交接占首 token 的多少", loc="left")
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


def _states(figures: Sequence[Measured]) -> list[str | None]:
    """The states of the cache that were measured; one, None, in records that do not say."""
    return list(dict.fromkeys(f.labels.get("cache") for f in figures if f.name == "ttft_ms"))


def _by_prompt(figures: Sequence[Measured], name: str, state: str | None) -> list[Measured]:
    found = (f for f in figures if f.name == name and f.labels.get("cache") == state)
    return sorted(found, key=lambda f: f.labels["prompt"])
