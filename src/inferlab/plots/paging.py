"""Reserved KV slots by what becomes of them, a bar an allocation policy."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inferlab.arithmetic.paging import SlotUse
from inferlab.plots.style import BLUE, GREY, ORANGE, RED, new_figure, source_note

PARTS = (
    ("used", "已存有 token", BLUE),
    ("later", "预留，以后才用", ORANGE),
    ("never", "预留，始终不用", RED),
)
LABEL_FROM = 4.0  # per cent; narrower parts have no room for their number


def fragmentation(
    uses: Mapping[str, SlotUse], *, title: str = "预留的 KV slot 都用来做了什么", note: str = ""
) -> Figure:
    """Shares of reserved slot-steps; behind each bar, slots reserved ÷ slots used.

    Args:
        uses: the policy's name for the reader → its slots, all for the same requests.
    """
    figure, axes = new_figure(width=8.4, height=1.6 + 0.55 * len(uses))
    for place, use in enumerate(uses.values()):
        left = 0.0
        for name, label, colour in PARTS:
            share = 100 * getattr(use, name) / use.reserved
            axes.barh(place, share, left=left, color=colour, height=0.6,
                      label=label if place == 0 else None)  # fmt: skip
            if share >= LABEL_FROM:
                axes.text(left + share / 2, place, f"{share:.1f}%", ha="center", va="center",
                          color="black" if colour == ORANGE else "white", fontsize=8.5)  # fmt: skip
            left += share
        axes.text(101, place, f"预留 = 用到的 {use.reserved / use.used:.2f}×", va="center",
                  fontsize=8.5, color=GREY)  # fmt: skip
    axes.set_yticks(range(len(uses)), list(uses))
    axes.invert_yaxis()
    axes.set_xlim(0, 124)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("占预留 slot 的百分比（按 decode 步累计）")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=3, fontsize=8.5)
    source_note(figure, note)
    return figure
