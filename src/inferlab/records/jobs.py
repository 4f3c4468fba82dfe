"""An experiment with its engines: what is asked of them before, and told of them after."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, cast
from zlib import crc32

from inferlab.arithmetic.shapes import ModelShape, read_config
from inferlab.arithmetic.work import Ceilings
from inferlab.engines import health, startup_log
from inferlab.engines.served import ServedModel
from inferlab.engines.shape_model import RecordedModel
from inferlab.engines.startup_log import StartupReport
from inferlab.engines.turns import Engine, Turns
from inferlab.errors import LabError
from inferlab.hardware.catalog import Dtype, find_gpu
from inferlab.load.endpoint import Endpoint
from inferlab.load.workloads import Lengths
from inferlab.records.against_ceilings import ceilings_record
from inferlab.records.benchmark import Outcome, Stopped
from inferlab.records.experiments import Experiment
from inferlab.records.load_plan import Load, parse_load
from inferlab.records.one_run import Bench, Ground, Watch
from inferlab.records.plan import Level
from inferlab.records.provenance import device_of
from inferlab.records.runs import Run
from inferlab.records.schema import Model, Record
from inferlab.records.served_by import describe_engine
from inferlab.records.telemetry import Marks
from inferlab.repository import root

REQUEST_LIMIT_S = 300.0
MOST_WHOLE_RUNS = 20
UNFINISHED = "没有测完"
QUANTISED = "权重在加载时量化，形状按 bf16 计的上限不适用"
WARM_UP_PLACES, WARM_UP_TOKENS = 8, 16


@dataclass(frozen=True)
class Job:
    """An experiment with all that it needs.

    Attributes:
        turns: the engines; each is started when it is first asked for.
        description: what makes two records the same measurement; goes into the record.
        deadline_s: on the monotonic clock; no run begins that would end after it.
        keep: takes the record of what was measured so far, after each part: a machine that is taken
            away does not let the process end first.
    """

    lab: str
    experiment: Experiment
    turns: Turns
    model: RecordedModel
    repeats: int
    command: str
    description: dict[str, Any] = field(default_factory=dict)
    deadline_s: float = inf
    keep: Callable[[Record], None] = lambda record: None

    @property
    def seed(self) -> int:
        """Of the experiment: two on one engine must not share prompts, or its cache serves one."""
        return crc32(f"{self.lab}/{self.experiment.id}".encode())

    @property
    def load(self) -> Load:
        """The parsed `load:`."""
        return parse_load(self.experiment.id, self.experiment.load)

    def mark(self, marks: Marks, name: str) -> AbstractContextManager[Any]:
        """A phase of the telemetry.

        Raises:
            Stopped: the deadline has passed.
        """
        if time.monotonic() > self.deadline_s:
            raise Stopped("到了时限，其余各次没有做")
        return marks.mark(name)


class Bounded(Watch):
    """Ends a benchmark before a run that would go beyond the job's deadline.

    Args:
        record: of what was measured so far, which the job keeps after each run.
    """

    def __init__(self, job: Job, record: Callable[[Outcome], Record]) -> None:
        self.job = job
        self.record = record
        self.so_far = Outcome(partial=UNFINISHED)

    def started(self, title: str, requests: int, duration_s: float) -> None:
        """Watch: a run begins."""
        if time.monotonic() + duration_s > self.job.deadline_s:
            raise Stopped("到了时限，其余各次没有做")
        self.job.turns.say(f"  {title}")

    def ended(self, run: Run) -> None:
        """Watch: a run ended."""
        self.so_far.runs.append(run)
        self.job.keep(self.record(self.so_far))


def ground_of(job: Job, name: str) -> Ground:
    """This machine and one engine, which gets the device.

    Raises:
        LabError: it did not start, or cannot be used.
    """
    engine = job.turns.take(name)
    options, config = engine.recipe.options(), engine.recipe.config
    ground = Ground.of(Endpoint(engine.url, timeout_s=REQUEST_LIMIT_S), options)
    source = config.relative_to(root()) if config.is_relative_to(root()) else config.name
    described = describe_engine(Endpoint(engine.described_at))
    known = described.model_copy(update={"config": options, "config_source": str(source)})
    model = Model(name=job.model.name, weights=job.model.weights, dtype=_dtype(options, job.model))
    limits = QUANTISED if options.get("quantization") else ground.limits
    return replace(ground, engine=known, model=model, limits=limits)


def _dtype(options: dict[str, Any], model: RecordedModel) -> str:
    """What the weights are computed in: quantised, set, or the checkpoint's own."""
    known = options.get("quantization") or options.get("dtype", "auto")
    return str(read_config(model.folder).get("torch_dtype", "auto")) if known == "auto" else known


def bench_of(job: Job, ground: Ground) -> Bench:
    """The job's load as a benchmark of one engine."""
    load = job.load
    return Bench(
        endpoint=ground.endpoint, plan=load.plan, levels=load.levels, repeats=job.repeats,
        seed=job.seed, slo=load.slo, share=load.share, name=job.experiment.id, lab=job.lab,
        command=job.command, keep_requests=load.keep_requests,
    )  # fmt: skip


def warm_up(bench: Bench) -> None:
    """A few short requests of the same kind, which nothing counts.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
        LabError: the engine is gone.
    """
    work = replace(bench.plan.workload, output=Lengths(WARM_UP_TOKENS))
    if work.kind not in ("random", "prefix"):
        return
    plan = replace(bench.plan, workload=work, duration_s=0.0, requests=2 * WARM_UP_PLACES)
    plan.run(bench.endpoint, Level(concurrency=WARM_UP_PLACES), f"{bench.seed}/warm-up").whole()


def shape_of(ground: Ground, engine: Engine) -> ModelShape | None:
    """The shape of the engine's model, where it is known."""
    try:
        served = ServedModel(ground.endpoint.model, str(engine.recipe.model), 0)
        return served.shape(engine.recipe.options())
    except LabError:
        return None


def ceilings_of(ground: Ground, dtype: str) -> tuple[Ceilings | None, str]:
    """The device's measured ceilings for a dtype, else its datasheet's; and where they are from."""
    if ground.limits == QUANTISED:
        return None, QUANTISED
    device = device_of(ground.host)
    if found := ceilings_record(device, dtype):
        return found
    spec, known = find_gpu(device), cast(Dtype, dtype)
    if spec and known in spec.dense_flops_per_s:
        return Ceilings(spec.peak(known), spec.memory_bytes_per_s), "datasheet"
    return None, f"没有 {device} 的上限"


def startup_of(engine: Engine) -> StartupReport:
    """The engine's figures of its start: from its log, else from `/metrics`."""
    report = engine.startup()
    if report.kv_cache_tokens:
        return report
    try:
        return startup_log.report_from_metrics(health.metrics(engine.url))
    except OSError:
        return report


def thinned(run: Run) -> Run:
    """A run with every tenth of its 201 latency quantiles: a record of many runs stays small."""
    return run.model_copy(update={"itl_quantiles_ms": run.itl_quantiles_ms[::10]})


def told(job: Job, record: Record, extra: dict[str, Any] | None = None) -> Record:
    """The record with what is known of engines, turns and description."""
    turns = job.turns
    known = {
        "measure": job.experiment.measure,
        "turns": turns.mode,
        "interleaved": turns.interleaved,
        "startup": {name: turns.starts[name] for name in turns.recipes if name in turns.starts},
        "description": job.description,
    }
    runs = record.runs if len(record.runs) <= MOST_WHOLE_RUNS else [*map(thinned, record.runs)]
    parameters = record.parameters | known | (extra or {})
    return record.model_copy(update={"parameters": parameters, "runs": runs})
