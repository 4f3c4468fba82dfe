"""When requests are due. Every process takes the run's one generator, so a seed fixes the run.

One process sends all of a run's requests: generators seeded alike in several workers would send in
bursts of as many requests as there are workers, which is not Poisson whatever each worker draws.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, takewhile
from math import sqrt
from random import Random

from inferlab.errors import UsageError
from inferlab.load.samples import RequestSpec


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """A request and when it is due, in seconds after the run's start."""

    at_s: float
    spec: RequestSpec


def constant(rate_per_s: float) -> Iterator[float]:
    """Evenly spaced times, the first at 0."""
    _require_positive(rate_per_s)
    return (number / rate_per_s for number in count())


def poisson(rate_per_s: float, random: Random) -> Iterator[float]:
    """Poisson process: independent users; gaps have CV 1 and no correlation."""
    _require_positive(rate_per_s)
    return _sums(random.expovariate(rate_per_s) for _ in count())


def binomial(rate_per_s: float, spans_s: Sequence[float], random: Random) -> Iterator[float]:
    """Binomial process: a Poisson process, given its count. Ends by itself.

    In each of the spans, one after the other, `rate × span` requests (rounded) are due at times
    drawn evenly, so that any two seeds offer the same load; the count of a Poisson process scatters
    by 1 ÷ √count. `vllm bench serve` stretches its gaps to the same end.
    """
    _require_positive(rate_per_s)
    starts = accumulate(spans_s, initial=0.0)
    return (
        at
        for start, span in zip(starts, spans_s, strict=False)
        for at in sorted(start + span * random.random() for _ in range(round(rate_per_s * span)))
    )


def gamma(rate_per_s: float, cv: float, random: Random) -> Iterator[float]:
    """Gamma-distributed gaps with coefficient of variation `cv`.

    Above 1 requests come in bursts, below 1 more evenly. `vllm bench serve --burstiness` is
    1 ÷ cv².
    """
    _require_positive(rate_per_s)
    _require_positive(cv)
    shape = 1 / cv**2
    return _sums(random.gammavariate(shape, 1 / (shape * rate_per_s)) for _ in count())


def ramp(
    start_per_s: float, end_per_s: float, duration_s: float, random: Random
) -> Iterator[float]:
    """Poisson arrivals whose rate goes in a straight line from start to end; ends by itself.

    Unit-rate arrivals are carried back through the integral of the rate, which is exact.
    """
    _require_positive(duration_s)
    if start_per_s < 0 or end_per_s < 0 or start_per_s + end_per_s <= 0:
        raise UsageError(f"速率不能为负或全为 0：{start_per_s:g} → {end_per_s:g}")
    slope = (end_per_s - start_per_s) / duration_s
    expected = (start_per_s + end_per_s) / 2 * duration_s
    unit = takewhile(lambda area: area < expected, _sums(random.expovariate(1) for _ in count()))
    return (_ramp_time(area, start_per_s, slope) for area in unit)


def replay(times_s: Iterable[float], speed: float = 1.0) -> Iterator[float]:
    """Recorded times, moved to start at 0 and played `speed` times as fast."""
    _require_positive(speed)
    ordered = sorted(times_s)
    return ((at - ordered[0]) / speed for at in ordered)


def schedule(
    times_s: Iterable[float], specs: Sequence[RequestSpec], duration_s: float | None = None
) -> list[TimedRequest]:
    """Puts one time to each spec, until either ends or `duration_s` is over."""
    pairs = zip(times_s, specs, strict=False)
    timed = (TimedRequest(at, spec) for at, spec in pairs)
    if duration_s is not None:
        timed = takewhile(lambda item: item.at_s < duration_s, timed)
    return list(timed)


def merge(*loads: Sequence[TimedRequest]) -> list[TimedRequest]:
    """Several loads as one, in order of time."""
    return sorted((item for load in loads for item in load), key=lambda item: item.at_s)


def first(times_s: Iterable[float], number: int) -> list[float]:
    """The first `number` times."""
    return list(islice(times_s, number))


def _sums(gaps: Iterable[float]) -> Iterator[float]:
    total = 0.0
    for gap in gaps:
        total += gap
        yield total


def _ramp_time(area: float, start_per_s: float, slope: float) -> float:
    """Time at which the integral of `start + slope * t` reaches `area`."""
    root = sqrt(start_per_s**2 + 2 * slope * area)
    return 2 * area / (start_per_s + root) if start_per_s + root else 0.0


def _require_positive(value: float) -> None:
    if not value > 0:
        raise UsageError(f"数值必须为正，现在是 {value:g}", remedy="检查速率、时长或 CV")
