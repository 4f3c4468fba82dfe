"""One run of a load as a record keeps it: summary, verdicts, telemetry, each request's times."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from inferlab.load.samples import RequestSample
from inferlab.measure.goodput import Goodput
from inferlab.measure.steady import SteadyState
from inferlab.measure.summary import Summary
from inferlab.measure.window import Window

ITL_QUANTILES = 201


class LatencyFigures(BaseModel):
    """Distribution of one latency over the complete answers of one run, in milliseconds."""

    model_config = ConfigDict(frozen=True)
    n: int = Field(description="number of values: requests, or tokens for itl_ms")
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class RunSummary(BaseModel):
    """Figures of one run. Latencies and rates cover complete answers inside the window only."""

    model_config = ConfigDict(frozen=True)
    requests: int = Field(description="requests scheduled inside the window")
    ok: int = Field(description="of those, answered whole, with usage and [DONE]")
    failures: dict[str, int] = Field(description="of those, failed, by kind (load.samples.Status)")
    cancelled: int = Field(description="of those, stopped by the client itself (Ctrl-C)")
    duration_s: float = Field(description="length of the window")
    prompt_tokens: int = Field(description="from the server's usage")
    cached_tokens: int = Field(description="prompt tokens that the server took from its cache")
    output_tokens: int = Field(description="from the server's usage")
    requests_per_s: float = Field(description="answers that ended inside the window, a second")
    output_tokens_per_s: float = Field(description="generated tokens that arrived, a second")
    total_tokens_per_s: float = Field(description="the same and prompt tokens, cache hits included")
    ttft_ms: LatencyFigures | None = Field(description="scheduled time to first token")
    tpot_ms: LatencyFigures | None = Field(description="a request's mean time per later token")
    itl_ms: LatencyFigures | None = Field(description="per token; a gap with k tokens is k values")
    chunk_gap_ms: LatencyFigures | None = Field(description="time between chunks as they came")
    e2e_ms: LatencyFigures | None = Field(description="scheduled time to the stream's end")
    send_delay_ms: LatencyFigures | None = Field(description="how late the client sent")
    token_counts_exact: bool = Field(description="False: the server gave no count with each chunk")

    @classmethod
    def of(cls, summary: Summary) -> "RunSummary":
        """The record's form of a summary."""
        return cls.model_validate(asdict(summary))


class GoodputFigures(BaseModel):
    """What met the SLO: rates of what ended in the window, and the share of all requests that began
    in it (failed included). Records whose `window` does not say so have rates of what began in it.
    """

    model_config = ConfigDict(frozen=True)
    requests_per_s: float
    output_tokens_per_s: float
    share: float


class SteadyVerdict(BaseModel):
    """Whether the run can stand for its load, by the rule of `measure.steady.steady_state`."""

    model_config = ConfigDict(frozen=True)
    verdict: str = Field(
        description="steady, too short, overloaded, drifting, in step, or client starved (of CPU)"
    )
    reason: str = ""


class RequestTable(BaseModel):
    """All requests of a run, failed ones and those outside the window included, by column.

    Times are seconds after the run's start; entry i of every column belongs to one request.
    """

    model_config = ConfigDict(frozen=True)
    scheduled_s: list[float] = Field(description="when it was due")
    sent_s: list[float] = Field(description="when it left the client")
    first_token_s: list[float | None]
    finished_s: list[float]
    prompt_tokens: list[int]
    cached_tokens: list[int]
    output_tokens: list[int]
    status: list[str]
    label: list[str] = Field(description="class of the request, such as chat, long, turn2")

    @classmethod
    def of(cls, samples: Sequence[RequestSample]) -> "RequestTable":
        """The table of one run's samples, to the hundredth of a millisecond."""
        return cls(
            scheduled_s=[round(s.scheduled_s, 5) for s in samples],
            sent_s=[round(s.sent_s, 5) for s in samples],
            first_token_s=[None if not s.chunk_s else round(s.chunk_s[0], 5) for s in samples],
            finished_s=[round(s.finished_s, 5) for s in samples],
            prompt_tokens=[s.prompt_tokens for s in samples],
            cached_tokens=[s.cached_tokens for s in samples],
            output_tokens=[s.output_tokens for s in samples],
            status=[str(s.status) for s in samples],
            label=[s.label for s in samples],
        )


class Run(BaseModel):
    """One run of one load: one repeat at one rate or concurrency, of one side of an A/B."""

    model_config = ConfigDict(frozen=True)
    labels: dict[str, Any] = Field(
        description="the condition, as in the record's figures: rate_per_s or concurrency, "
        "side (A, B), phase (search, capacity)"
    )
    repeat: int = Field(description="number of the repeat under this condition, from 0")
    seed: str = Field(description="of the run's one generator")
    started_at: float = Field(description="Unix time at second 0 of the run")
    duration_s: float = Field(description="of the whole run, drain included")
    window_s: tuple[float, float] = Field(description="the part that counts: start, end")
    summary: RunSummary
    goodput: GoodputFigures | None = Field(default=None, description="with an SLO only")
    steady: SteadyVerdict
    limits: dict[str, float] = Field(
        default_factory=dict,
        description="mbu, mfu: share of the measured ceilings; and what they were computed from",
    )
    partial: str = Field(default="", description="why the run ended early; empty for a whole run")
    client_waited_s: float | None = Field(
        default=None, description="how long the client was ready to run but had no CPU; Linux only"
    )
    telemetry: dict[str, Any] | None = Field(
        default=None,
        description="GPU means and energy_j over the run, as hardware.phases.summarize gives them",
    )
    itl_quantiles_ms: list[float] = Field(
        default_factory=list, description="201 evenly spaced quantiles of itl_ms, 0 to 1"
    )
    requests: RequestTable | None = Field(default=None, description="absent in imported results")


def itl_quantiles(samples: Sequence[RequestSample], window: Window) -> list[float]:
    """Evenly spaced quantiles of the inter-token latency, for the CDF; empty without tokens."""
    values = [v for s in samples if s.ok and s.scheduled_s in window for v in s.itl_ms]
    if not values:
        return []
    quantiles = np.quantile(values, np.linspace(0, 1, ITL_QUANTILES))
    return [round(float(value), 4) for value in quantiles]


def goodput_figures(goodput: Goodput) -> GoodputFigures:
    """The record's form of a goodput."""
    return GoodputFigures.model_validate(asdict(goodput))


def steady_verdict(state: SteadyState) -> SteadyVerdict:
    """The record's form of a steady-state verdict."""
    return SteadyVerdict(verdict=state.verdict, reason=state.reason)
