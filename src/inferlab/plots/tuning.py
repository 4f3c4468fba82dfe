"""A tuning, one knob at a time: each step's ratio with its interval, and whether it was kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from inferlab.plots.style import GREEN, GREY, RED, new_figure, source_note
from inferlab.records.schema import Comparison

COLOUR_OF = {"B faster": GREEN, "A faster": RED, "no difference": GREY, "as starts differ": GREY}
DECISION = {"B faster": "保留", "A faster": "退回", "no difference": "退回：看不出差别",
            "as starts differ": "一次启动分不出来"}  # fmt: skip
FINDING = DECISION | {"B faster": "更高", "A faster": "更低", "no difference": "看不出差别"}


@dataclass(frozen=True)
class TuningStep:
    """One knob, against what was kept so far.

    Attributes:
        knob: for the reader.
        comparison: paired.
        between_starts: share by which two starts of one configuration may differ, where each side
            was started once. The interval does not hold that: it must lie beyond it altogether.
    """

    knob: str
    comparison: Comparison
    between_starts: float = 0.0

    @property
    def verdict(self) -> str:
        """The comparison's; `as starts differ` where it is no more than that."""
        found = self.comparison
        clear = found.low > 1 + self.between_starts or found.high < 1 - self.between_starts
        if found.verdict == "no difference" or clear:
            return found.verdict
        return "as starts differ"


def tuning_steps(
    steps: Sequence[TuningStep], *, metric: str = "goodput", title: str = "", note: str = "",
    tuning: bool = True,
) -> Figure:  # fmt: skip
    """A row a step: new ÷ old with its interval, green where it was kept. A grey bar is how far two
    starts of one configuration lie apart.

    Args:
        metric: what the ratios are of; higher is better.
        tuning: False where two ways are compared and nothing is kept or taken back.
    """
    words = DECISION if tuning else FINDING
    figure, axes = new_figure(width=8.6, height=1.7 + 0.5 * len(steps))
    highest = max([1.05, *(max(step.comparison.high, 1 + step.between_starts) for step in steps)])
    lowest = min([0.95, *(min(step.comparison.low, 1 - step.between_starts) for step in steps)])
    room = 0.06 * (highest - lowest)
    for place, step in enumerate(steps):
        found = step.comparison
        bars = [[max(0.0, found.ratio - found.low)], [max(0.0, found.high - found.ratio)]]
        colour, decision = COLOUR_OF[step.verdict], words[step.verdict]
        if band := step.between_starts:
            axes.barh(place, 2 * band, left=1 - band, height=0.5, color="#DDDDDD", zorder=0)
        axes.errorbar(found.ratio, place, xerr=bars, fmt="o", color=colour, capsize=4)
        axes.text(highest + room, place, f"{found.ratio:.2f}×  {decision}",
                  va="center", fontsize=8.5, color=colour)  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(steps)), [step.knob for step in steps])
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xlim(lowest - room, highest + 8 * room)
    starts = "灰条是换一次启动的起伏；" if any(step.between_starts for step in steps) else ""
    ratio = "改后 ÷ 改前" if tuning else "后者 ÷ 前者"
    axes.set_xlabel(f"{metric}：{ratio}（点与区间；{starts}区间含 1 就不能说有差别）")
    axes.set_title(title or "一次只动一个旋钮", loc="left")
    source_note(figure, note)
    return figure
