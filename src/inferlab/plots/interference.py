"""What chats and long prompts feel of each other, for several ways to serve them."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, interval_bars, new_figure, source_note
from inferlab.records.schema import Figure as Measured

# figure, part, request → how the reader calls it; from the top down.
FIGURES = {
    ("itl_ms", "p50", "chat"): "对话 ITL p50",
    ("itl_ms", "p99", "chat"): "对话 ITL p99",
    ("longest_itl_ms", "p90", "chat"): "每段对话最长的停顿 p90",
    ("longest_itl_ms", "p99", "chat"): "每段对话最长的停顿 p99",
    ("ttft_ms", "p90", "chat"): "对话 TTFT p90",
    ("ttft_ms", "p50", "long"): "长 prompt TTFT p50",
}
COLORS = (BLUE, ORANGE, GREEN, GREY)


def interference(sides: Mapping[str, Sequence[Measured]], *, note: str = "") -> Figure:
    """A row a figure, a point a side with its interval, on a logarithmic scale of milliseconds.

    Args:
        sides: label → figures of `measure.chunked_prefill`.
    """
    figure, axes = new_figure(width=8.6, height=1.2 + (0.1 + 0.2 * len(sides)) * len(FIGURES))
    for number, (side, measured) in enumerate(sides.items()):
        known = {(f.name, f.labels.get("part"), f.labels.get("request")): f for f in measured}
        found = [known[key] for key in FIGURES]
        rows = [row + 0.22 * (number - (len(sides) - 1) / 2) for row in range(len(found))]
        axes.errorbar(
            [each.mean for each in found], rows, xerr=interval_bars(found), fmt="o", capsize=2,
            color=COLORS[number], label=side,
        )  # fmt: skip
        for row, each in zip(rows, found, strict=True):
            axes.annotate(_shown(each.mean), (each.high, row), textcoords="offset points",
                          xytext=(5, -3), fontsize=8, color=COLORS[number])  # fmt: skip
    axes.set_yticks(range(len(FIGURES)), list(FIGURES.values()))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("ms（对数）")
    axes.set_title("长 prompt 到来时，谁在等", loc="left")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", ncols=len(sides), fontsize=8.5)
    source_note(figure, note)
    return figure


def _shown(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"
