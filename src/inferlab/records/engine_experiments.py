"""One experiment on one or two running engines, and the record that it becomes."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from inferlab.engines import health
from inferlab.engines.deployment import RunningDeployment
from inferlab.engines.turns import Engine
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load.runner import INTERRUPTED
from inferlab.measure import (
    decode_grid,
    handover,
    kv_capacity,
    kv_transfer_check,
    pd_faults,
    static_batching,
)
from inferlab.measure.under_test import UnderTest
from inferlab.records.ab import Ab, Sides, ab_record, compared, run_ab
from inferlab.records.benchmark import Outcome, Stopped, as_record, run_bench
from inferlab.records.cold_starts import run_cold_starts
from inferlab.records.goodput_ab import run_ladders, with_capacities
from inferlab.records.jobs import (
    UNFINISHED,
    Bounded,
    Job,
    bench_of,
    ceilings_of,
    ground_of,
    shape_of,
    startup_of,
    told,
    warm_up,
)
from inferlab.records.one_run import Ground
from inferlab.records.provenance import device_of
from inferlab.records.schema import Comparison, Figure, Record
from inferlab.records.telemetry import marked_telemetry
from inferlab.repository import root


def measure(job: Job) -> Record:
    """Measure and describe; the record is partial when it could not be finished.

    Raises:
        LabError: nothing could be measured.
    """
    match job.experiment.measure:
        case "bench" | "saturation":
            return _bench(job)
        case "cold_starts":
            return run_cold_starts(job)
        case "ab":
            return _pair(job)
        case "goodput_ab":
            return _ladders(job)
        case _:
            return _series(job)


def _bench(job: Job) -> Record:
    ground = ground_of(job, job.experiment.engines[0])
    bench = bench_of(job, ground)
    warm_up(bench)

    def record(outcome: Outcome) -> Record:
        return told(job, as_record(bench, ground, outcome))

    return record(run_bench(bench, ground, Bounded(job, record)))


def _pair(job: Job) -> Record:
    pair, grounds = _two_sides(job)

    def record(outcome: Outcome) -> Record:
        return told(job, ab_record(pair, grounds, outcome), _names(job))

    return record(run_ab(pair, grounds, Bounded(job, record), _sides(job)))


def _ladders(job: Job) -> Record:
    pair, grounds = _two_sides(job)

    def record(outcome: Outcome) -> Record:
        return told(job, with_capacities(ab_record(pair, grounds, outcome)), _names(job))

    return record(run_ladders(pair, grounds, Bounded(job, record), _sides(job)))


def _two_sides(job: Job) -> tuple[Ab, tuple[Ground, Ground]]:
    """Both engines looked at and warmed up, each in its turn."""
    grounds = []
    for name in job.experiment.engines:
        grounds.append(ground_of(job, name))
        warm_up(bench_of(job, grounds[-1]))
    a, b = grounds
    return Ab(bench_of(job, a), bench_of(job, b)), (a, b)


def _sides(job: Job) -> Sides:
    names = dict(zip("AB", job.experiment.engines, strict=True))
    side_of = {name: side for side, name in names.items()}
    return Sides(
        take=lambda side: job.turns.take(names[side]),
        interleaved=lambda: job.turns.interleaved,
        current=lambda: side_of.get(job.turns.active, "A"),
    )


def _names(job: Job) -> dict[str, str]:
    return dict(zip(("engine_a", "engine_b"), job.experiment.engines, strict=True))


def _series(job: Job) -> Record:
    name = job.experiment.engines[0]
    ground, engine = ground_of(job, name), job.turns.take(name)
    shape = shape_of(ground, engine)
    ceilings, source = ceilings_of(ground, shape.dtype if shape else "bf16")
    notes: dict[str, Any] = {"limits": source, "gpus": ground.gpus}

    def record(found: Sequence[Series], why: str) -> Record:
        return told(job, Record(
            lab=job.lab, experiment=job.experiment.id, device=device_of(ground.host),
            command=job.command, repeats=job.repeats, seed=job.seed, partial=why, host=ground.host,
            software=ground.software, engine=ground.engine, model=ground.model,
            parameters=job.experiment.given | notes,
            figures=[Figure.from_series(each) for each in found], comparisons=_compared(found),
        ))  # fmt: skip

    with marked_telemetry(ground.gpus) as marks:
        under = UnderTest(
            endpoint=ground.endpoint, options=engine.recipe.options(),
            shape=shape, ceilings=ceilings, repeats=job.repeats, seed=job.seed,
            mark=partial(job.mark, marks), notes=notes, workers=engine.urls(),
        )  # fmt: skip
        measured = _measured(job, engine, under)
        found, why = _gather(measured, lambda so_far: job.keep(record(so_far, UNFINISHED)))
    if marks.summary:
        notes["telemetry"] = marks.summary
    return record(found, why)


def _measured(job: Job, engine: Engine, under: UnderTest) -> Iterable[Series]:
    given, report = job.experiment.given, startup_of(engine)
    match job.experiment.measure:
        case "kv_capacity":
            if under.shape is None:
                raise LabError("不知道这个模型的形状，算不出 KV 容量", remedy="models/configs/")
            return kv_capacity.measure(
                report, engine.log_text(), health.metrics(engine.url), under.options, under.shape,
                "gpu" if engine.recipe.device == "gpu" else "cpu",
            )  # fmt: skip
        case "decode_grid":
            return decode_grid.measure(under, given, report.kv_cache_tokens)
        case "handover":
            return handover.measure(under, given)
        case "pd_faults":
            return pd_faults.measure(under, _deployment(engine), given)
        case "kv_transfer_check":
            return kv_transfer_check.measure(under, _deployment(engine), given)
        case "static_batching":
            return static_batching.measure(under, given)
        case other:
            module = import_module(f"inferlab.measure.{other}")
            with_ = {"repeats": job.repeats} | given
            with under.mark(other):
                return module.measure(engine.url, _trace_folder(engine), with_)


def _deployment(engine: Engine) -> RunningDeployment:
    if isinstance(engine, RunningDeployment):
        return engine
    raise LabError(f"{engine.recipe.name} 不是部署", remedy="engines 写 deployments 里的一个名字")


def _trace_folder(engine: Engine) -> Path:
    """Where the engine writes profiles, if it does; else where its log lies."""
    profiler = engine.recipe.options().get("profiler-config") or {}
    folder = profiler.get("torch_profiler_dir") if isinstance(profiler, dict) else None
    return root() / folder if folder else engine.recipe.log.parent


def _gather(
    measured: Iterable[Series], keep: Callable[[Sequence[Series]], None]
) -> tuple[list[Series], str]:
    """What was measured, and why it ended early (empty for the whole).

    Args:
        keep: takes what there is so far, after each series.

    Raises:
        LabError: nothing was measured.
        KeyboardInterrupt: the same, by Ctrl-C.
    """
    found: list[Series] = []
    try:
        for each in measured:
            found.append(each)
            keep(found)
    except (Exception, KeyboardInterrupt) as error:  # whatever it was: what was measured is kept
        if found:
            return found, _reason(error)
        if isinstance(error, LabError | KeyboardInterrupt):
            raise
        raise LabError(f"没有测到任何数（{_reason(error)}）") from error
    return found, ""


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    known = isinstance(error, LabError | Stopped | OSError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def _compared(found: Iterable[Series]) -> list[Comparison]:
    """Continuous ÷ static of the output rate, where both were measured."""
    rates = {each.labels.get("mode"): each.values for each in found
             if each.name == "output_tokens_per_s"}  # fmt: skip
    if {"static", "continuous"} - rates.keys() or len(rates["static"]) < 2:
        return []
    return [compared("output_tokens_per_s", rates["static"], rates["continuous"], 0.95)]
