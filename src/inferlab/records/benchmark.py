"""Benchmarks: runs at each level of load, repeated, and the record they become."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inferlab.errors import LabError, UsageError
from inferlab.load.runner import INTERRUPTED
from inferlab.measure.goodput import Capacity, find_capacity
from inferlab.records.figures import figures_of
from inferlab.records.one_run import WINDOW_RULE, Bench, Ground, Watch, measure_once
from inferlab.records.plan import Level
from inferlab.records.provenance import device_of
from inferlab.records.runs import Run
from inferlab.records.schema import Record


@dataclass
class Outcome:
    """What was measured, whole or not: runs in order, and why it ended early."""

    runs: list[Run] = field(default_factory=list)
    partial: str = ""
    capacity: Capacity | None = None


class Stopped(Exception):
    """A run ended early: nothing more is measured, what was is kept."""


def run_bench(bench: Bench, ground: Ground, watch: Watch | None = None) -> Outcome:
    """All repeats of all levels, in turn.

    Raises:
        LabError: nothing could be measured at all.
    """
    watch = watch or Watch()

    def body(outcome: Outcome) -> None:
        for repeat in range(bench.repeats):
            for level in bench.levels:
                title = f"{level}，第 {repeat + 1}/{bench.repeats} 次"
                watch.started(title, bench.plan.expected_requests(level), bench.plan.duration_s)
                take(outcome, partial(measure_once, bench, ground, level,
                                      repeat=repeat, watch=watch))  # fmt: skip

    return collect(body)


def run_capacity(
    bench: Bench, ground: Ground, watch: Watch | None = None, *, precision: float = 0.05
) -> Outcome:
    """Searches the highest rate that keeps the SLO, then repeats it to bound it.

    A rate holds when `bench.share` of its requests meet the SLO and its queue does not grow.

    Raises:
        UsageError: no SLO, or not exactly one rate to start from.
        LabError: nothing could be measured at all.
    """
    watch = watch or Watch()
    if bench.slo is None or len(bench.levels) != 1 or not bench.levels[0].rate_per_s:
        raise UsageError(
            "--find-capacity 需要 --slo 和一个起始 --rate",
            remedy="例如 --find-capacity --rate 2 --slo ttft=500ms,tpot=50ms",
        )

    def at(outcome: Outcome, rate: float, repeat: int, phase: str) -> Run:
        level = Level(rate_per_s=rate)
        title = f"{'搜索' if phase == 'search' else '复测'} {rate:.3g} req/s"
        watch.started(title, bench.plan.expected_requests(level), bench.plan.duration_s)
        return take(outcome, partial(measure_once, bench, ground, level, repeat=repeat, salt=phase,
                                     labels={"phase": phase}, watch=watch))  # fmt: skip

    def body(outcome: Outcome) -> None:
        def holds(rate: float) -> bool:
            return holds_slo(at(outcome, rate, 0, "search"), bench.share)

        found = find_capacity(holds, bench.levels[0].rate_per_s, precision=precision)
        outcome.capacity = found
        for repeat in range(bench.repeats):
            at(outcome, found.rate_per_s, repeat, "capacity")

    return collect(body)


def holds_slo(run: Run, share: float) -> bool:
    """Whether enough requests met the SLO and the queue did not grow."""
    good = run.goodput is not None and run.goodput.share >= share
    return good and run.steady.verdict != "overloaded"


def take(outcome: Outcome, measure: Callable[[], Run]) -> Run:
    """Measures and keeps the run.

    Raises:
        Stopped: it ended early.
    """
    run = measure()
    outcome.runs.append(run)
    if run.partial:
        raise Stopped(run.partial)
    if run.summary.requests and run.summary.failures.get("connect_error") == run.summary.requests:
        raise Stopped("所有请求都连不上服务，引擎可能已退出")
    return run


def collect(body: Callable[[Outcome], None]) -> Outcome:
    """Runs the body and keeps what it measured when it cannot go on.

    Raises:
        LabError: it failed before anything was measured.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    outcome = Outcome()
    try:
        body(outcome)
    except Stopped as stop:
        outcome.partial = str(stop)
    except KeyboardInterrupt:
        if not outcome.runs:
            raise
        outcome.partial = INTERRUPTED
    except LabError as error:
        if not outcome.runs:
            raise
        outcome.partial = str(error)
    if not any(run.summary.ok for run in outcome.runs):
        outcome.partial = outcome.partial or "没有一个请求得到完整的回答"
    return outcome


def as_record(bench: Bench, ground: Ground, outcome: Outcome) -> Record:
    """The record of a benchmark."""
    return Record(
        kind="benchmark", lab=bench.lab, experiment=bench.name, device=device_of(ground.host),
        command=bench.command, repeats=bench.repeats, seed=bench.seed, partial=outcome.partial,
        host=ground.host, software=ground.software, engine=ground.engine,
        model=ground.model, parameters=parameters(bench, ground, outcome),
        figures=figures_of(outcome.runs), runs=outcome.runs,
    )  # fmt: skip


def parameters(bench: Bench, ground: Ground, outcome: Outcome) -> dict[str, Any]:
    """Workload, arrivals, SLO and the rules by which runs were judged."""
    plan = asdict(bench.plan)
    load = plan["workload"]
    load["file"] = Path(load["file"]).name if load["file"] else None
    found = outcome.capacity
    return plan | {
        "api": bench.endpoint.api,
        "latency_from": "schedule",
        "window": WINDOW_RULE,
        "tokens": "server usage",
        "slo": asdict(bench.slo) if bench.slo else None,
        "slo_share": bench.share if bench.slo else None,
        "capacity_req_per_s": found.rate_per_s if found else None,
        "limits": ground.limits if isinstance(ground.limits, str) else ground.limits.source,
        "gpus": ground.gpus,
    }
