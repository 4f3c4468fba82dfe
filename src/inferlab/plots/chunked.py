"""Chunked prefill: what long prompts wait against what chats feel, over the chunk's size."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREY, interval_bars, new_figure, source_note
from inferlab.records.schema import Figure as Measured


def chunk_tradeoff(
    points: Mapping[int, tuple[Measured, Measured]], *, title: str = "", note: str = ""
) -> Figure:
    """A dot a chunk size with both intervals: TTFT across, longest ITL up; lower left is better.

    Args:
        points: `max-num-batched-tokens` → (TTFT of the long prompts, longest ITL of the others),
            both in ms.
    """
    figure, axes = new_figure(width=7.0, height=4.2)
    ordered = sorted(points.items())
    x = [ttft.mean for _, (ttft, _) in ordered]
    y = [itl.mean for _, (_, itl) in ordered]
    axes.plot(x, y, color=GREY, linewidth=0.9, zorder=1)
    for tokens, (ttft, itl) in ordered:
        axes.errorbar(ttft.mean, itl.mean, yerr=interval_bars([itl]), xerr=interval_bars([ttft]),
                      fmt="o", color=BLUE, capsize=3, markersize=6)  # fmt: skip
        axes.annotate(f"{tokens:,}", (ttft.mean, itl.mean), (8, 6), textcoords="offset points",
                      fontsize=9)  # fmt: skip
    axes.set_xlim(0, 1.25 * max(ttft.high for _, (ttft, _) in ordered))
    axes.set_ylim(0, 1.2 * max(itl.high for _, (_, itl) in ordered))
    axes.set_xlabel("长 prompt 的 TTFT p50（ms）")
    axes.set_ylabel("对话中最长的 ITL，p90（ms）")
    axes.set_title(title or "每步最多算多少 token（点旁：max-num-batched-tokens）", loc="left")
    source_note(figure, note)
    return figure
