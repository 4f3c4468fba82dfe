"""One load on an engine that is started anew for each repeat, with nothing compiled before.

Inductor tunes kernels by timing them at the start, and keeps what won in a cache: two starts with
empty caches may run different kernels. Repeats on one start do not show that difference; these do.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inferlab.engines.compile_cache import cache_variables, chosen_differently, chosen_kernels
from inferlab.records.benchmark import Outcome, as_record, collect, take
from inferlab.records.jobs import Bounded, Job, bench_of, ground_of, told, warm_up
from inferlab.records.one_run import Bench, Ground, measure_once
from inferlab.records.schema import Record


def run_cold_starts(job: Job) -> Record:
    """Start, warm up, measure and stop, `job.repeats` times.

    `parameters.starts` has each start's seconds and the kernels that it chose.

    Raises:
        LabError: nothing could be measured, or the engine is a deployment.
    """
    name = job.experiment.engines[0]
    load = job.load
    measured: list[tuple[Bench, Ground]] = []
    starts: list[dict[str, Any]] = []

    def record(outcome: Outcome) -> Record:
        differ = chosen_differently([each["kernels"] for each in starts])
        extra = {"starts": starts, "kernels_chosen_differently": differ}
        return told(job, as_record(*measured[0], outcome), extra)

    watch = Bounded(job, record)

    def one(outcome: Outcome, number: int, folder: Path) -> None:
        level = load.levels[0]
        title = f"第 {number + 1}/{job.repeats} 次启动"
        watch.started(title, load.plan.expected_requests(level), load.plan.duration_s)
        job.turns.restart(name, cache_variables(folder))
        starts.append(job.turns.starts[name] | {"kernels": chosen_kernels(folder)})
        ground = ground_of(job, name)
        bench = bench_of(job, ground)
        measured.append((bench, ground))
        warm_up(bench)
        take(outcome, partial(measure_once, bench, ground, level, repeat=number, watch=watch))

    def body(outcome: Outcome) -> None:
        for number in range(job.repeats):
            with TemporaryDirectory(prefix="inferlab-compiled-", ignore_cleanup_errors=True) as at:
                try:
                    one(outcome, number, Path(at))
                finally:
                    job.turns.stop(name)

    return record(collect(body))
