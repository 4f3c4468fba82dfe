"""Goodput of A against B: both climb one ladder of rates with the same seeds, in rounds.

A climb ends when goodput falls, or no longer rises while requests queue. In later rounds a side
begins at the best rate it has found, so that time goes to the knee; where that no longer holds, it
goes down until one does.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from inferlab.errors import UsageError
from inferlab.hardware.timing import Series
from inferlab.records.ab import Ab, Sides, compared, in_turn
from inferlab.records.benchmark import Outcome, collect, take
from inferlab.records.one_run import Ground, Watch, measure_once
from inferlab.records.plan import Level
from inferlab.records.runs import Run
from inferlab.records.schema import Comparison, Figure, Record

BEST = "best_goodput_req_per_s"
FALLEN = 0.9  # of the best so far: below it the knee is passed, above it may be scatter


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
        level = _first_rung(left, outcome.runs, side)
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

    Down until a rate holds, then up until it is over.
    """
    if not climb:
        return next(iter(left), None)
    low, high = climb[0].labels["rate_per_s"], climb[-1].labels["rate_per_s"]
    below = [level for level in left if level.rate_per_s < low]
    if below and not _held(climb[0], share):
        return below[-1]
    above = [level for level in left if level.rate_per_s > high]
    return above[0] if above and not is_over(climb) else None


def best_runs(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """side → round → the run of the highest goodput; rounds that both sides climbed to the end."""
    return {
        side: {number: max(climb, key=_goodput) for number, climb in by_round.items()}
        for side, by_round in _whole_climbs(runs).items()
    }


def rounds_unbroken(runs: Sequence[Run], share: float) -> dict[str, int]:
    """side → rounds whose climb ended while the rate still held: their best is a lower bound.

    A rate holds when `share` of its requests met the SLO and the requests in flight did not grow.
    """
    climbs = _whole_climbs(runs)
    return {side: sum(_held(climb[-1], share) for climb in climbs[side].values()) for side in "AB"}


def settled(record: Record) -> bool:
    """Whether in a record every climb went past the highest rate that its side holds.

    Where it does not say which share of the requests must meet the SLO, all must.
    """
    share = record.parameters.get("slo_share") or 1.0
    return not any(rounds_unbroken(record.runs, share).values())


def _whole_climbs(runs: Sequence[Run]) -> dict[str, dict[int, list[Run]]]:
    """side → round → its runs, lowest rate first; rounds that both sides climbed to the end."""
    top = max((run.labels["rate_per_s"] for run in runs), default=0.0)
    done = {
        key: found
        for key, found in _climbs(runs).items()
        if found[-1].labels["rate_per_s"] == top or is_over(found)
    }
    rounds = sorted({n for side, n in done if side == "A"} & {n for s, n in done if s == "B"})
    return {side: {n: done[side, n] for n in rounds} for side in "AB"}


def _first_rung(ladder: Sequence[Level], runs: Sequence[Run], side: str) -> Level:
    """Where the side begins a round: at its best rate so far, at first at the lowest."""
    known = [run for run in runs if run.labels["side"] == side and _counts(run)]
    best = max(known, key=_goodput).labels["rate_per_s"] if known else 0.0
    return next(level for level in ladder if level.rate_per_s >= best)


def _climbs(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    """(side, round) → its whole runs, lowest rate first."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        if _counts(run):
            found.setdefault((run.labels["side"], run.repeat), []).append(run)
    return {key: sorted(each, key=lambda r: r.labels["rate_per_s"]) for key, each in found.items()}


def is_over(climb: Sequence[Run]) -> bool:
    """Whether a climb (lowest rate first) has passed its best: higher rates would only queue."""
    if len(climb) < 2:
        return False
    last, best = climb[-1], max(map(_goodput, climb[:-1]))
    stuck = _overloaded(last) and _goodput(last) <= best
    return stuck or _goodput(last) < FALLEN * best


def _held(run: Run, share: float) -> bool:
    return not _overloaded(run) and run.goodput is not None and run.goodput.share >= share


def _overloaded(run: Run) -> bool:
    return run.steady.verdict == "overloaded"


def goodput_figures(runs: Sequence[Run]) -> list[Figure]:
    """`best_goodput_req_per_s` by side, one value a round; `goodput_req_per_s` by side and rate."""
    found = [
        Figure.from_series(Series(BEST, "req/s", [_goodput(run) for run in by_round.values()],
                                  {"side": side}))
        for side, by_round in best_runs(runs).items() if by_round
    ]  # fmt: skip
    groups: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        if _counts(run):
            key = run.labels["side"], run.labels["rate_per_s"]
            groups.setdefault(key, []).append(_goodput(run))
    for (side, rate), values in groups.items():
        labels = {"side": side, "rate_per_s": rate}
        found.append(Figure.from_series(Series("goodput_req_per_s", "req/s", values, labels)))
    return found


def goodput_comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """B ÷ A of the rounds' best goodput; empty with fewer than two rounds, or where one is 0."""
    best = best_runs(runs)
    a, b = ([_goodput(run) for run in best[side].values()] for side in "AB")
    if len(a) < 2 or min(*a, *b) <= 0:
        return []
    return [compared(BEST, a, b, 0.95)]


def ladder_notes(runs: Sequence[Run], share: float) -> dict[str, Any]:
    """Where the best rates lay, by side, and whether they are a lower bound (`rounds_unbroken`)."""
    unbroken = rounds_unbroken(runs, share)
    notes: dict[str, Any] = {}
    for side, by_round in best_runs(runs).items():
        best = list(by_round.values())
        name = side.lower()
        notes[f"best_rates_{name}"] = [run.labels["rate_per_s"] for run in best]
        notes[f"lower_bound_{name}"] = unbroken[side] > 0
        notes[f"best_while_overloaded_{name}"] = sum(map(_overloaded, best))
    return notes


def _counts(run: Run) -> bool:
    """Whole, and answered at all: a server that was gone has no goodput, not one of 0."""
    return not run.partial and run.goodput is not None and run.summary.ok > 0


def _goodput(run: Run) -> float:
    return run.goodput.requests_per_s if run.goodput else 0.0
