"""Batch slots over time: static batching beside continuous batching."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREY, ORANGE, new_figure, source_note

NAMES = {"static": "静态 batch：等最长的一个", "continuous": "连续 batch：空出一个补一个"}
Row = Sequence[float]  # slot, start_s, first_token_s, end_s, tokens


def slot_timelines(timelines: Mapping[str, Sequence[Row]], batch: int, *, note: str = "") -> Figure:
    """One panel a way to admit: a bar a request in its slot; what is left grey was empty.

    Args:
        timelines: `static` and `continuous` → rows [slot, start_s, first_token_s, end_s, tokens],
            as `measure.static_batching` notes them.
        batch: slots.
    """
    height = 1.4 + 0.16 * min(batch, 16)
    figure, panels = new_figure(1, len(timelines), width=9.6, height=height * len(timelines))
    longest = max(row[3] for rows in timelines.values() for row in rows)
    for axes, (mode, rows) in zip(panels, timelines.items(), strict=True):
        _panel(axes, rows, batch)
        end = max(row[3] for row in rows)
        taken = sum(row[3] - row[1] for row in rows) / (batch * end)
        speed = sum(row[4] for row in rows) / end
        axes.set_title(f"{NAMES.get(mode, mode)}。{end:.1f} s，slot 占用 {taken:.0%}，"
                       f"{speed:,.0f} tok/s", loc="left", fontsize=10)  # fmt: skip
        axes.set_xlim(0, longest * 1.02)
        axes.axvline(end, color="black", linewidth=1, linestyle=":")
    panels[-1].set_xlabel("秒")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3,
                  fontsize=8.5)  # fmt: skip
    source_note(figure, note)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], batch: int) -> None:
    end = max(row[3] for row in rows)
    axes.barh(range(batch), [end] * batch, height=0.86, color=GREY, alpha=0.22, label="空的 slot")
    slots, starts, firsts, ends = ([row[i] for row in rows] for i in range(4))
    prefill = [first - start for start, first in zip(starts, firsts, strict=True)]
    decode = [end - first for first, end in zip(firsts, ends, strict=True)]
    axes.barh(slots, prefill, left=starts, height=0.86, color=ORANGE, label="到首 token")
    axes.barh(slots, decode, left=firsts, height=0.86, color=BLUE, edgecolor="white",
              linewidth=0.4, label="生成")  # fmt: skip
    axes.set_ylim(batch - 0.4, -0.6)
    axes.set_yticks(range(0, batch, max(1, batch // 8)))
    axes.set_ylabel("slot")
    axes.grid(visible=False)
