"""Goodput of A against B: the rate at which a share of the requests still meets the SLO.

As DistServe defines goodput (Zhong et al., OSDI 2024): the highest rate at which, say, 90 % of the
requests meet it. Both sides climb one ladder of rates with the same seeds, in rounds, until a rate
does not hold; between the last that did and that one the rate is interpolated. Answers counted
inside a window would scatter more: what is in flight at its ends comes and goes with the arrivals.

A side begins in the middle of the ladder, in later rounds where it was last seen to hold, so that
time goes to the knee; where that does not hold, it goes down until one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

from inferlab.errors import UsageError
from inferlab.hardware.timing import Series
from inferlab.measure.statistics import Interval
from inferlab.records.ab import Ab, Sides, compared, in_turn
from inferlab.records.benchmark import Outcome, collect, take
from inferlab.records.figures import figures_of
from inferlab.records.one_run import Ground, Watch, measure_once
from inferlab.records.plan import Level
from inferlab.records.runs import Run
from inferlab.records.schema import Figure, Record

CAPACITY = "capacity_req_per_s"
_NOTES = ("lower_bound", "upper_bound", "growing_where_held")


def run_ladders(
    pair: Ab, grounds: tuple[Ground, Ground], watch: Watch | None = None, sides: Sides | None = None
) -> Outcome:
    """Rounds in which both sides climb the same ladder (the benches' levels, lowest first).

    Raises:
        LabError: nothing could be measured at all.
        UsageError: fewer than two rounds, no SLO, or a level without a rate.
    """
    if pair.a.repeats < 2 or pair.a.slo is None or not all(x.rate_per_s for x in pair.a.levels):
        raise UsageError("goodput_ab 需要 slo、rates 和至少 2 轮", remedy="检查 load 与 --repeats")
    watch, sides = watch or Watch(), sides or Sides()

    def climb(outcome: Outcome, number: int, side: str) -> None:
        bench, ground = (pair.a, grounds[0]) if side == "A" else (pair.b, grounds[1])
        left = sorted(bench.levels, key=lambda level: level.rate_per_s)
        level = _first_rung(left, outcome.runs, side, bench.share)
        while level:
            left.remove(level)
            title = f"{side}，{level}，第 {number + 1}/{bench.repeats} 轮"
            watch.started(title, bench.plan.expected_requests(level), bench.plan.duration_s)
            take(outcome, partial(measure_once, bench, ground, level, repeat=number,
                                  labels={"side": side}, watch=watch))  # fmt: skip
            level = next_rung(left, _climbs(outcome.runs).get((side, number), []), bench.share)

    def body(outcome: Outcome) -> None:
        for number, side in in_turn(pair.a.repeats, sides):
            sides.take(side)
            climb(outcome, number, side)

    return collect(body)


def next_rung(left: Sequence[Level], climb: Sequence[Run], share: float) -> Level | None:
    """The rung after those of a climb (lowest first) among the `left` ones; None at its end.

    Down until a rate holds, then up until one does not.
    """
    if not climb:
        return next(iter(left), None)
    low, high = _rate(climb[0]), _rate(climb[-1])
    below = [level for level in left if level.rate_per_s < low]
    if below and not _held(climb[0], share):
        return below[-1]
    above = [level for level in left if level.rate_per_s > high]
    return above[0] if above and _held(climb[-1], share) else None


@dataclass(frozen=True)
class Bracket:
    """Where the share of a climb's requests within the SLO falls through the one that is asked.

    Rounds on the same two rates agree more closely than either is known: an interval over them has
    their scatter in it, not the width of the step.

    Attributes:
        rate_per_s: interpolated between the two; the one there is where the other is missing.
        held: the run at the last rate that held; None where not even the lowest did.
        broke: the run at the next rate; None where the highest still held.
    """

    rate_per_s: float
    held: Run | None
    broke: Run | None

    @classmethod
    def of(cls, climb: Sequence[Run], share: float) -> "Bracket":
        """Of one side's runs of one round, lowest rate first; at least one."""
        number = next((n for n, run in enumerate(climb) if not _held(run, share)), len(climb))
        held = climb[number - 1] if number else None
        broke = climb[number] if number < len(climb) else None
        if held and broke:
            fallen = (_share(held) - share) / (_share(held) - _share(broke))
            return cls(_rate(held) + fallen * (_rate(broke) - _rate(held)), held, broke)
        return cls(_rate(held or climb[0]), held, broke)


def with_capacities(record: Record) -> Record:
    """The record of ladders with its figures, comparison and notes, all from its runs.

    `capacity_req_per_s` by side has one value a round, of those that both sides climbed to the end;
    the notes say in which it is a bound only, and where requests in flight still grew at the rate
    that held (a longer window might have found it too high).
    """
    share = _share_asked(record)
    brackets = _brackets(record.runs, share)
    figures = [
        Figure.from_series(Series(CAPACITY, "req/s", [k.rate_per_s for k in found], {"side": side}))
        for side, found in brackets.items() if found
    ]  # fmt: skip
    a, b = ([bracket.rate_per_s for bracket in brackets[side]] for side in "AB")
    return record.model_copy(update={
        "figures": figures + figures_of(record.runs),
        "comparisons": [compared(CAPACITY, a, b, 0.95)] if len(a) > 1 else [],
        "parameters": record.parameters | _notes(brackets),
    })  # fmt: skip


@dataclass(frozen=True)
class OpenEnds:
    """Ends of an interval that mean nothing, because a round found a bound of the rate only.

    Where not even the lowest rate held, the capacity counts as that rate: the values are too high,
    and so is the interval's lower end, while the upper one stands.
    """

    low: bool = False
    high: bool = False

    @classmethod
    def of(cls, record: Record, side: str) -> "OpenEnds":
        """Of one side's capacity; a side without a finished round knows neither end."""
        found = _brackets(record.runs, _share_asked(record))[side]
        if not found:
            return cls(low=True, high=True)
        return cls.of_rounds(found)

    @classmethod
    def of_rounds(cls, found: Sequence[Bracket]) -> "OpenEnds":
        """Of the mean of these rounds' brackets."""
        return cls(any(not k.held for k in found), any(not k.broke for k in found))

    def over(self, below: "OpenEnds") -> "OpenEnds":
        """Of this capacity divided by another."""
        return OpenEnds(self.low or below.high, self.high or below.low)

    def opened(self, interval: Interval) -> Interval:
        """The interval that is surely known."""
        return replace(
            interval,
            low=0.0 if self.low else interval.low,
            high=inf if self.high else interval.high,
        )


def open_ends(record: Record) -> OpenEnds:
    """Of B's capacity ÷ A's."""
    return OpenEnds.of(record, "B").over(OpenEnds.of(record, "A"))


def settled(record: Record) -> bool:
    """Whether each climb of a record found a rate that its side holds and one that it does not.

    Not settled: a record without a round that both sides climbed to the end.
    """
    return open_ends(record) == OpenEnds()


def _share_asked(record: Record) -> float:
    """Of the requests that must meet the SLO; where the record does not say, all."""
    return record.parameters.get("slo_share") or 1.0


def _brackets(runs: Sequence[Run], share: float) -> dict[str, list[Bracket]]:
    """side → its brackets, of the rounds that both sides climbed to the end."""
    rates = [_rate(run) for run in runs]
    done: dict[tuple[str, int], Bracket] = {}
    for key, climb in _climbs(runs).items():
        bracket = Bracket.of(climb, share)
        if (bracket.broke or _rate(climb[-1]) == max(rates)) and (
            bracket.held or _rate(climb[0]) == min(rates)
        ):
            done[key] = bracket
    rounds = sorted({n for side, n in done if side == "A"} & {n for side, n in done if side == "B"})
    return {side: [done[side, number] for number in rounds] for side in "AB"}


def _notes(brackets: dict[str, list[Bracket]]) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    for side, found in brackets.items():
        growing = [k for k in found if k.held and k.held.steady.verdict == "overloaded"]
        ends = OpenEnds.of_rounds(found)
        values = ends.high, ends.low, len(growing)
        notes |= {f"{name}_{side.lower()}": v for name, v in zip(_NOTES, values, strict=True)}
    return notes


def _first_rung(ladder: Sequence[Level], runs: Sequence[Run], side: str, share: float) -> Level:
    """Where the side begins a round: at the last rate below its last knee, at first in the
    middle."""
    climbs = {number: climb for (who, number), climb in _climbs(runs).items() if who == side}
    if not climbs:
        return ladder[(len(ladder) - 1) // 2]
    knee_per_s = Bracket.of(climbs[max(climbs)], share).rate_per_s
    below = [level for level in ladder if level.rate_per_s <= knee_per_s]
    return below[-1] if below else ladder[0]


def _climbs(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    """(side, round) → its whole runs, lowest rate first."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        if _counts(run):
            found.setdefault((run.labels["side"], run.repeat), []).append(run)
    return {key: sorted(each, key=_rate) for key, each in found.items()}


def _counts(run: Run) -> bool:
    """Whole, and answered at all: a server that was gone has no share of 0, but none."""
    return not run.partial and run.goodput is not None and run.summary.ok > 0


def _held(run: Run, share: float) -> bool:
    return _share(run) >= share


def _share(run: Run) -> float:
    return run.goodput.share if run.goodput else 0.0


def _rate(run: Run) -> float:
    return float(run.labels["rate_per_s"])
