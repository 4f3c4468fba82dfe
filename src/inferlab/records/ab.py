"""A against B: interleaved rounds of one load on two endpoints, and what they allow to be said."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from inferlab.errors import LabError, UsageError
from inferlab.measure.repeats import METRICS, SMALLEST_DIFFERENCE
from inferlab.measure.statistics import compare
from inferlab.records.benchmark import Outcome, collect, parameters, take
from inferlab.records.figures import figures_of, values_of
from inferlab.records.one_run import Bench, Ground, Watch, measure_once
from inferlab.records.provenance import device_of
from inferlab.records.runs import Run
from inferlab.records.schema import Comparison, Record

Verdict = Literal["A faster", "B faster", "no difference"]


@dataclass(frozen=True)
class Ab:
    """Two benchmarks of one plan and level; only their endpoints differ."""

    a: Bench
    b: Bench

    @property
    def same_server(self) -> bool:
        """Whether both are one server: prompts must differ then, or its cache favours B."""
        return self.a.endpoint.address == self.b.endpoint.address


@dataclass(frozen=True)
class Sides:
    """How both servers share a device; by default each has its own.

    Attributes:
        take: gives the device to a side (`A` or `B`).
        interleaved: whether it may change hands after each run; asked before each.
        current: the side that has it.
    """

    take: Callable[[str], object] = lambda side: None
    interleaved: Callable[[], bool] = lambda: True
    current: Callable[[], str] = lambda: "A"


def in_turn(rounds: int, sides: Sides) -> Iterator[tuple[int, str]]:
    """(round, side) of all runs: AB, BA, AB, …; all of one side first where turns are costly."""
    left = [(each, side) for each in range(rounds) for side in ("AB" if each % 2 == 0 else "BA")]
    while left:
        same = [item for item in left if item[1] == sides.current()]
        item = left[0] if sides.interleaved() or not same else same[0]
        left.remove(item)
        yield item


def run_ab(
    pair: Ab,
    grounds: tuple[Ground, Ground],
    watch: Watch | None = None,
    sides: Sides | None = None,
) -> Outcome:
    """Rounds of A and B, changing who goes first; `Run.labels` has `side`.

    Both sides of a round get the same load, unless they are one server.

    Raises:
        LabError: nothing could be measured at all.
        UsageError: fewer than two rounds.
    """
    if pair.a.repeats < 2:
        raise UsageError(f"A/B 至少要 2 轮，现在是 {pair.a.repeats}", remedy="默认 5 轮")
    watch, sides = watch or Watch(), sides or Sides()

    def one(outcome: Outcome, side: str, number: int) -> None:
        bench, ground = (pair.a, grounds[0]) if side == "A" else (pair.b, grounds[1])
        level = bench.levels[0]
        title = f"{side}，第 {number + 1}/{bench.repeats} 轮"
        sides.take(side)
        watch.started(title, bench.plan.expected_requests(level), bench.plan.duration_s)
        salt = side if pair.same_server else ""
        take(outcome, partial(measure_once, bench, ground, level, repeat=number, salt=salt,
                              labels={"side": side}, watch=watch))  # fmt: skip

    def body(outcome: Outcome) -> None:
        for number, side in in_turn(pair.a.repeats, sides):
            one(outcome, side, number)

    return collect(body)


def comparisons(runs: Sequence[Run], confidence: float = 0.95) -> list[Comparison]:
    """B ÷ A of each of `METRICS` over the whole rounds; empty with fewer than two of them.

    Intervals are widened for the number of metrics (Bonferroni), so that the chance of any false
    difference stays at 1 - confidence. Below 1 % none is claimed.
    """
    sides = {side: {r.repeat: r for r in runs if r.labels.get("side") == side and not r.partial}
             for side in "AB"}  # fmt: skip
    rounds = sorted(sides["A"].keys() & sides["B"].keys())
    if len(rounds) < 2:
        return []
    a, b = ([values_of(sides[side][number]) for number in rounds] for side in "AB")
    names = [name for name in METRICS if all(each.get(name, (0,))[0] > 0 for each in (*a, *b))]
    each = 1 - (1 - confidence) / max(1, len(names))
    return [
        compared(name, [v[name][0] for v in a], [v[name][0] for v in b], each) for name in names
    ]


def compared(
    name: str, a: Sequence[float], b: Sequence[float], confidence: float, *, paired: bool = True
) -> Comparison:
    """B ÷ A of one metric, with its verdict.

    Raises:
        LabError: a value is not positive.
    """
    found = compare(b, a, confidence, paired=paired, smallest=SMALLEST_DIFFERENCE)
    ratio = found.ratio
    return Comparison(name=name, ratio=ratio.mean, low=ratio.low, high=ratio.high,
                      confidence=confidence, verdict=faster(name, found.verdict))  # fmt: skip


def faster(name: str, verdict: str) -> Verdict:
    """Whose figure is better when B's is `higher` or `lower` than A's."""
    if verdict == "no difference":
        return "no difference"
    lower_is_better = "_ms" in name or name.startswith(("energy", "power"))
    b_is_better = (verdict == "lower") == lower_is_better
    return "B faster" if b_is_better else "A faster"


def ab_record(pair: Ab, grounds: tuple[Ground, Ground], outcome: Outcome) -> Record:
    """The record of an A/B."""
    a, b, ground = pair.a, pair.b, grounds[0]
    asked = {"model_a": a.endpoint.model, "model_b": b.endpoint.model}
    return Record(
        kind="ab", lab=a.lab, experiment=a.name, device=device_of(ground.host), command=a.command,
        repeats=a.repeats, seed=a.seed, partial=outcome.partial, host=ground.host,
        software=ground.software, engine=ground.engine, engine_b=grounds[1].engine,
        model=ground.model,
        parameters=parameters(a, ground, outcome) | asked | {"same_server": pair.same_server},
        figures=figures_of(outcome.runs), runs=outcome.runs,
        comparisons=comparisons(outcome.runs),
    )  # fmt: skip


def both_grounds(pair: Ab) -> tuple[Ground, Ground]:
    """This machine and both servers.

    Raises:
        LabError: an endpoint cannot be used.
    """
    return Ground.of(pair.a.endpoint), Ground.of(pair.b.endpoint)


def overall(found: Sequence[Comparison]) -> str:
    """One verdict over all metrics: a side that wins some and loses none, else `mixed`.

    Raises:
        LabError: nothing was compared.
    """
    if not found:
        raise LabError("完整的轮次不足 2 轮，不能下结论", remedy="让每一轮都做完，再比较")
    wins = {each.verdict for each in found} - {"no difference"}
    return "mixed" if len(wins) > 1 else wins.pop() if wins else "no difference"
