"""Goodput: what is served *within* its latency targets; and the highest rate that keeps them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferlab.errors import LabError, UsageError
from inferlab.load.samples import RequestSample, Status
from inferlab.measure.window import Window, whole_window

_PART = re.compile(r"(ttft|tpot|itl|e2e)=(\d+(?:\.\d+)?)(ms|s)?")


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency targets of a single request; None means no target.

    `itl_ms` bounds the request's longest gap between chunks, `tpot_ms` its mean time per token.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Slo":
        """Reads `ttft=500ms,tpot=50ms`; units `ms` (default) and `s`.

        Raises:
            UsageError: a part is not understood.
        """
        targets: dict[str, float] = {}
        for part in text.replace(" ", "").split(","):
            found = _PART.fullmatch(part)
            if not found:
                raise UsageError(f"看不懂 SLO {part!r}", remedy="写成 ttft=500ms,tpot=50ms")
            targets[f"{found[1]}_ms"] = float(found[2]) * (1000 if found[3] == "s" else 1)
        return cls(**targets)

    def meets(self, sample: RequestSample) -> bool:
        """Whether a request was answered whole and within every target."""
        if not sample.ok:
            return False
        seen = (
            (sample.ttft_ms, self.ttft_ms),
            (sample.tpot_ms, self.tpot_ms),
            (max(sample.chunk_gap_ms, default=None), self.itl_ms),
            (sample.e2e_ms, self.e2e_ms),
        )
        return all(target is None or value is None or value <= target for value, target in seen)


@dataclass(frozen=True, slots=True)
class Goodput:
    """What met the targets: rates of what *ended* in the window, the share of what began in it.

    A rate by what began would credit an overloaded engine with answers that it only owes: while the
    queue grows the first of them still keep their targets. The other way round, a warm-up shorter
    than one answer makes the rates too low; `steady_state` calls such a run too short.

    Failed requests count against the share; those that the client cancelled are left out.
    """

    requests_per_s: float
    output_tokens_per_s: float
    share: float


def goodput(samples: Sequence[RequestSample], slo: Slo, window: Window | None = None) -> Goodput:
    """Of one run; `window` is all of it by default."""
    window = window or whole_window(samples)
    counted = [s for s in samples if s.scheduled_s in window and s.status is not Status.CANCELLED]
    ended = [s for s in samples if s.finished_s in window and slo.meets(s)]
    per_s = 1 / window.duration_s if window.duration_s > 0 else 0.0
    return Goodput(
        len(ended) * per_s,
        sum(sample.output_tokens for sample in ended) * per_s,
        sum(map(slo.meets, counted)) / len(counted) if counted else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Capacity:
    """Result of a search: the highest rate that held, and everything tried in order."""

    rate_per_s: float
    tried: list[tuple[float, bool]] = field(default_factory=list)


def find_capacity(
    holds: Callable[[float], bool], start_per_s: float = 1.0, *, precision: float = 0.05,
    highest_per_s: float = 1e4,
) -> Capacity:  # fmt: skip
    """Searches the highest rate for which `holds(rate)`: doubling, then halving the interval.

    Args:
        holds: measures at a rate and says whether the targets were kept and the run was steady.
        start_per_s: first rate tried.
        precision: ends when failure and success are this close, relatively.
        highest_per_s: gives up doubling here.

    Raises:
        LabError: not even 1/64 of the first rate holds.
    """
    tried: list[tuple[float, bool]] = []

    def attempt(rate: float) -> bool:
        tried.append((rate, holds(rate)))
        return tried[-1][1]

    good, bad = 0.0, 0.0
    rate = start_per_s
    while not (good and bad):
        if attempt(rate):
            good, rate = rate, rate * 2
        else:
            bad, rate = rate, rate / 2
        if good >= highest_per_s:
            return Capacity(good, tried)
        if not good and rate < start_per_s / 64:
            raise LabError(
                f"速率降到 {bad:g} req/s 仍达不到 SLO", remedy="放宽 SLO，或先看单请求延迟"
            )
    while bad / good > 1 + precision:
        middle = (good * bad) ** 0.5
        good, bad = (middle, bad) if attempt(middle) else (good, middle)
    return Capacity(good, tried)
