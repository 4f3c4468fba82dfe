"""Samples become figures: latency percentiles, throughput, and failures kept apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferlab.load.samples import RequestSample, Status
from inferlab.measure.statistics import Values
from inferlab.measure.window import Window, tokens_arrived, whole_window


@dataclass(frozen=True, slots=True)
class Latency:
    """Distribution of one latency, in milliseconds."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one run. Latencies and throughput cover complete answers only.

    `failures` counts the others by kind; `cancelled` are those that the client itself stopped.
    Throughput counts what complete answers brought inside the window of `duration_s` seconds:
    `output_tokens_per_s` generated tokens by arrival, `total_tokens_per_s` also the prompt tokens
    of the answers that began inside it, those served from a cache included (`cached_tokens` says
    how many), `requests_per_s` the answers that ended inside it.
    `token_counts_exact` is False when the server gave no count with each chunk.
    """

    requests: int
    ok: int
    failures: dict[str, int]
    cancelled: int
    duration_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_ms: Latency | None
    tpot_ms: Latency | None
    itl_ms: Latency | None
    chunk_gap_ms: Latency | None
    e2e_ms: Latency | None
    send_delay_ms: Latency | None
    token_counts_exact: bool

    @property
    def failed(self) -> int:
        """Requests that failed, whatever the kind."""
        return sum(self.failures.values())


def latency(values: Values) -> Latency | None:
    """Percentiles of `values` in milliseconds; None when there are none."""
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        return None
    p50, p90, p95, p99 = np.percentile(data, [50, 90, 95, 99]).tolist()
    return Latency(data.size, float(data.mean()), p50, p90, p95, p99, float(data.max()))


def summarise(
    samples: Sequence[RequestSample], window: Window | None = None, *, from_schedule: bool = True
) -> Summary:
    """Figures of one run.

    Args:
        samples: of one run, failed ones included.
        window: what counts, see `window.steady_window`; the whole run by default.
        from_schedule: latencies count from the scheduled time; False counts from the sending and
            hides queueing in the client (coordinated omission).
    """
    window = window or whole_window(samples)
    counted = [sample for sample in samples if sample.scheduled_s in window]
    ok = [sample for sample in counted if sample.ok]
    whole = [sample for sample in samples if sample.ok]
    output = tokens_arrived(whole, window)
    per_s = 1 / window.duration_s if window.duration_s > 0 else 0.0
    return Summary(
        requests=len(counted),
        ok=len(ok),
        failures=failures(counted),
        cancelled=sum(s.status is Status.CANCELLED for s in counted),
        duration_s=window.duration_s,
        prompt_tokens=sum(s.prompt_tokens for s in ok),
        cached_tokens=sum(s.cached_tokens for s in ok),
        output_tokens=sum(s.output_tokens for s in ok),
        token_counts_exact=not any(s.tokens_estimated for s in ok),
        requests_per_s=sum(s.finished_s in window for s in whole) * per_s,
        output_tokens_per_s=output * per_s,
        total_tokens_per_s=(output + _prompt_tokens(whole, window)) * per_s,
        ttft_ms=latency(_ttfts(ok, from_schedule)),
        tpot_ms=latency([s.tpot_ms for s in ok if s.tpot_ms is not None]),
        itl_ms=latency([value for s in ok for value in s.itl_ms]),
        chunk_gap_ms=latency([value for s in ok for value in s.chunk_gap_ms]),
        e2e_ms=latency([s.e2e_ms - _hidden(s, from_schedule) for s in ok]),
        send_delay_ms=latency([s.send_delay_ms for s in ok]),
    )


def failures(samples: Sequence[RequestSample]) -> dict[str, int]:
    """How many requests failed, by kind; those cancelled by the client are not failures."""
    calm = (Status.OK, Status.CANCELLED)
    return dict(Counter(str(s.status) for s in samples if s.status not in calm))


def _prompt_tokens(ok: Sequence[RequestSample], window: Window) -> int:
    return sum(s.prompt_tokens for s in ok if s.chunk_s and s.chunk_s[0] in window)


def _ttfts(ok: Sequence[RequestSample], from_schedule: bool) -> list[float]:
    return [s.ttft_ms - _hidden(s, from_schedule) for s in ok if s.ttft_ms is not None]


def _hidden(sample: RequestSample, from_schedule: bool) -> float:
    return 0.0 if from_schedule else sample.send_delay_ms
