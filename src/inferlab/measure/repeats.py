"""Repeats and interleaved A/B: what several runs of the same load allow to be said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferlab.errors import LabError, UsageError
from inferlab.measure.statistics import Comparison, Interval, compare, mean_interval
from inferlab.measure.summary import Latency, Summary

METRICS = (
    "output_tokens_per_s",
    "requests_per_s",
    "ttft_ms.p50",
    "ttft_ms.p99",
    "tpot_ms.p50",
    "itl_ms.p99",
    "e2e_ms.p50",
)
SMALLEST_DIFFERENCE = 0.01
Run = Callable[[int], Summary]


def metric(summary: Summary, name: str) -> float:
    """One figure by name, such as `output_tokens_per_s` or `ttft_ms.p99`.

    Raises:
        UsageError: there is no such figure.
        LabError: the run has no value for it (no request was answered whole).
    """
    first, _, part = name.partition(".")
    value = getattr(summary, first, None) if first in Summary.__slots__ else _unknown(name)
    if isinstance(value, Latency):
        value = getattr(value, part or "mean") if hasattr(value, part or "mean") else _unknown(name)
    if value is None:
        raise LabError(f"这次运行没有 {name}", remedy="先看失败请求的原因")
    if not isinstance(value, int | float):
        _unknown(name)
    return float(value)


def repeat(run: Run, times: int = 5) -> list[Summary]:
    """Runs `run(0)`, `run(1)`, …; the number is for the seed."""
    return [run(number) for number in range(times)]


def interval(runs: Sequence[Summary], name: str, confidence: float = 0.95) -> Interval:
    """Mean over repeats of one figure, with Student's t interval."""
    return mean_interval([metric(run, name) for run in runs], confidence)


@dataclass(frozen=True, slots=True)
class AbRuns:
    """Interleaved runs of A and B: round i of the one beside round i of the other."""

    a: list[Summary]
    b: list[Summary]

    def compare(
        self, name: str, confidence: float = 0.95, smallest: float = SMALLEST_DIFFERENCE
    ) -> Comparison:
        """B ÷ A of one figure: the gain of B over A, with its interval.

        No difference is claimed when the interval holds 1, or below `smallest`.
        """
        return compare(
            [metric(run, name) for run in self.b],
            [metric(run, name) for run in self.a],
            confidence,
            smallest=smallest,
        )

    def compare_all(
        self, names: Sequence[str] = METRICS, confidence: float = 0.95
    ) -> dict[str, Comparison]:
        """Several figures at once, the chance of any false difference kept at 1 - confidence.

        Each interval is widened for the number of figures (Bonferroni).
        """
        each = 1 - (1 - confidence) / len(names)
        return {name: self.compare(name, each) for name in names}


def interleaved(
    run_a: Run, run_b: Run, rounds: int = 5, *, on_round: Callable[[int], None] | None = None
) -> AbRuns:
    """Runs A and B in turn, changing who goes first (AB, BA, AB, …).

    Both get the round's number for their seed, so a round's pair sees the same load, and what
    drifts slowly falls out of the ratio.

    Raises:
        UsageError: fewer than two rounds, which bound nothing.
    """
    if rounds < 2:
        raise UsageError(f"A/B 至少要 2 轮，现在是 {rounds}", remedy="默认 5 轮")
    a: list[Summary] = []
    b: list[Summary] = []
    for number in range(rounds):
        order = [(run_a, a), (run_b, b)]
        for run, runs in order if number % 2 == 0 else reversed(order):
            runs.append(run(number))
        if on_round is not None:
            on_round(number)
    return AbRuns(a, b)


def _unknown(name: str) -> None:
    raise UsageError(f"没有名为 {name!r} 的指标", remedy=f"例如 {'、'.join(METRICS)}")
