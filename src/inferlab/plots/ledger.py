"""The memory ledger as bars."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inferlab.arithmetic.ledger import GIB, MemoryLedger
from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure

COLOUR_OF = {
    "weights": BLUE,
    "kv_cache": GREEN,
    "activations": ORANGE,
    "runtime": PURPLE,
    "free": "#DDDDDD",
}
LABEL_FROM_SHARE = 0.045  # narrower parts have no room for their number


def memory_ledgers(ledgers: Mapping[str, MemoryLedger], title: str = "显存账本") -> Figure:
    """One stacked bar a case, in GiB, with the case's max concurrency behind it.

    Args:
        ledgers: the case's name → its ledger.
    """
    figure, axes = new_figure(height=1.1 + 0.62 * len(ledgers))
    widest = max(ledger.memory_bytes for ledger in ledgers.values()) / GIB
    for place, ledger in enumerate(ledgers.values()):
        left = 0.0
        for row in ledger.rows:
            label = row.label if place == 0 else None
            axes.barh(place, row.gib, left=left, color=COLOUR_OF[row.key], label=label, height=0.62)
            if row.gib > LABEL_FROM_SHARE * widest:
                dark = row.key not in ("free", "activations")
                axes.text(left + row.gib / 2, place, f"{row.gib:.1f}", ha="center", va="center",
                          color="white" if dark else "black", fontsize=8.5)  # fmt: skip
            left += row.gib
        note = f"  {ledger.capacity.max_concurrency:.1f}×" if ledger.fits else "  放不下"
        axes.text(left, place, note, va="center", fontsize=9, color=GREY)
    axes.set_yticks(range(len(ledgers)), list(ledgers))
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.12)
    axes.set_xlabel("GiB（条末：最长请求的最大并发）")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8.5)
    return figure
