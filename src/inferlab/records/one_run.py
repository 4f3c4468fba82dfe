"""One run of a benchmark: what is measured, against which server, and how the run is judged."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from inferlab.errors import LabError, UsageError
from inferlab.hardware.host import HostInfo, describe_host
from inferlab.load.endpoint import Endpoint
from inferlab.load.event_loop import run_async
from inferlab.load.probe import check_endpoint
from inferlab.load.runner import RunResult
from inferlab.load.samples import RequestSample
from inferlab.measure.goodput import Slo, goodput
from inferlab.measure.steady import steady_state
from inferlab.measure.summary import summarise
from inferlab.measure.window import WARM_UP_SHARE, Window, steady_window, whole_window
from inferlab.records import runs as form
from inferlab.records.against_ceilings import Limits, limits_of, shares
from inferlab.records.plan import Level, Plan
from inferlab.records.provenance import describe_software, device_of
from inferlab.records.runs import Run
from inferlab.records.schema import EngineInfo, Model, Software
from inferlab.records.served_by import describe_engine, describe_model, is_local
from inferlab.records.telemetry import busy_gpus, gpu_telemetry

WINDOW_RULE = (
    "first tenth of the scheduled time (the ramp, where longer) is warm-up, "
    "the time after the last is drain; goodput counts what ended between them"
)


class Watch:
    """What a benchmark tells while it runs; this one says nothing."""

    def started(self, title: str, requests: int, duration_s: float) -> None:
        """A run begins; `requests` or `duration_s` is 0 when it is not known before."""

    def sample(self, sample: RequestSample) -> None:
        """A request ended."""

    def ended(self, run: Run) -> None:
        """A run ended."""


@dataclass(frozen=True)
class Bench:
    """A benchmark of one endpoint.

    Args:
        levels: rates, concurrencies, or the one level of a trace.
        repeats: runs at each level; levels take turns, so that drift meets all alike.
        slo: for goodput, and for the search of the capacity.
        share: of requests that must meet the SLO for a rate to hold.
        name: of the record.
        lab: of the record.
        command: of the record.
        keep_requests: keep each request's times in the record.
    """

    endpoint: Endpoint
    plan: Plan
    levels: tuple[Level, ...]
    repeats: int = 5
    seed: int = 0
    slo: Slo | None = None
    share: float = 0.99
    name: str = "bench"
    lab: str = "bench"
    command: str = ""
    keep_requests: bool = True


@dataclass(frozen=True)
class Ground:
    """What stays the same over all runs of one endpoint.

    Attributes:
        endpoint: checked, as it has to be used.
        engine: asked before the runs: a server that dies cannot tell any more.
        limits: of this device, or why there are none.
        gpus: indices of the GPUs at work on this machine.
    """

    endpoint: Endpoint
    host: HostInfo
    engine: EngineInfo
    model: Model
    limits: Limits | str
    gpus: list[int] = field(default_factory=list)

    @cached_property
    def software(self) -> Software:
        """Versions of this interpreter and clone, with the engine's; another interpreter is started
        to ask, once."""
        name, version = self.engine.name, self.engine.version
        return describe_software(Path(sys.executable), f"{name} {version}" if version else None)

    @classmethod
    def of(cls, endpoint: Endpoint, options: Mapping[str, Any] | None = None) -> "Ground":
        """Looks at this machine and at the server.

        Args:
            options: the engine's configuration, where the caller knows it; else what the server
                tells.

        Raises:
            LabError: the endpoint cannot be used.
        """
        endpoint = usable(endpoint)
        host, engine = describe_host(), describe_engine(endpoint)
        gpus = busy_gpus() if host.gpus and is_local(endpoint) else []
        limits = limits_of(endpoint, engine.config if options is None else options,
                           device_of(host), max(1, len(gpus)))  # fmt: skip
        return cls(endpoint, host, engine, describe_model(endpoint, engine), limits, gpus)


def measure_once(
    bench: Bench, ground: Ground, level: Level, *, repeat: int = 0, salt: str = "",
    labels: dict[str, Any] | None = None, watch: Watch | None = None,
) -> Run:  # fmt: skip
    """One run at one level.

    Args:
        salt: set apart the prompts of runs that would otherwise share a seed.
        labels: added to the level's own.

    Raises:
        LabError: the endpoint cannot be used.
    """
    watch = watch or Watch()
    seed = "/".join(filter(None, [str(bench.seed), str(repeat), str(level), salt]))
    with gpu_telemetry(ground.gpus) as telemetry:
        result = bench.plan.run(ground.endpoint, level, seed, watch.sample)
    named = level.labels | (labels or {})
    run = _as_run(bench, ground, result, named, repeat, seed)
    if telemetry:
        telemetry["output_tokens"] = sum(sample.output_tokens for sample in result.samples)
    run = run.model_copy(update={"telemetry": telemetry or None})
    watch.ended(run)
    return run


def usable(endpoint: Endpoint, tries: int = 3) -> Endpoint:
    """The endpoint as it has to be used; a server that fails now and then gets another try.

    Raises:
        LabError: it cannot be used.
    """
    for left in reversed(range(tries)):
        try:
            return run_async(check_endpoint(endpoint))
        except UsageError:
            raise
        except LabError:
            if not left:
                raise
    return endpoint


def counted_window(samples: Sequence[RequestSample], warm_up: float = WARM_UP_SHARE) -> Window:
    """The steady window by the rule, or the whole run when that leaves fewer than ten requests."""
    try:
        window = steady_window(samples, warm_up=warm_up)
    except LabError:
        return whole_window(samples)
    counted = sum(sample.scheduled_s in window for sample in samples)
    return window if counted >= 10 else whole_window(samples)


def _as_run(
    bench: Bench, ground: Ground, result: RunResult, labels: dict[str, Any], repeat: int, seed: str
) -> Run:
    samples = result.samples
    window = counted_window(samples, bench.plan.warm_up)
    summary = summarise(samples, window)
    good = goodput(samples, bench.slo, window) if bench.slo else None
    known = ground.limits
    return Run(
        labels=labels, repeat=repeat, seed=seed, started_at=round(result.started_at, 3),
        duration_s=result.duration_s, window_s=(window.start_s, window.end_s),
        summary=form.RunSummary.of(summary),
        steady=_steady(result, window, closed="concurrency" in labels),
        goodput=form.goodput_figures(good) if good else None,
        limits={} if isinstance(known, str) else shares(known, samples, window, summary),
        partial=result.stopped, client_waited_s=result.waited_s,
        itl_quantiles_ms=form.itl_quantiles(samples, window),
        requests=form.RequestTable.of(samples) if bench.keep_requests else None,
    )  # fmt: skip


def _steady(result: RunResult, window: Window, *, closed: bool) -> form.SteadyVerdict:
    samples = result.samples
    if not samples or window.duration_s <= 0:
        return form.SteadyVerdict(verdict="too short", reason="没有请求")
    if result.starved:
        share = (result.waited_s or 0.0) / result.duration_s
        reason = f"压测进程有 {share:.0%} 的时间在等 CPU，延迟不可信：让出 CPU，或从另一台机器压测"
        return form.SteadyVerdict(verdict="client starved", reason=reason)
    found = form.steady_verdict(steady_state(samples, window, closed=closed))
    if closed and found.verdict == "overloaded":
        # The client itself holds the number in flight, so no queue can grow.
        return form.SteadyVerdict(verdict="drifting", reason="在途请求数不稳：太短，或本机太忙")
    return found
