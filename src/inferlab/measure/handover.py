"""The handover of a prompt's KV cache from the prefill to the decode worker: bytes, time, rate.

One prompt at a time, prompts that share nothing. Bytes and seconds are the decode worker's own
(`kv_transfer`); beside them the bytes that the model's shape predicts, and what the client waited.

A fresh cache flatters: its free blocks lie in order, and NIXL joins what lies side by side. vLLM
gives a request's blocks back last first, so once the cache has been turned over nearly every block
is a piece of its own. Both are measured.
"""

from collections.abc import Iterator
from math import ceil
from random import Random
from typing import Any

from inferlab.arithmetic.separation import handover_bytes
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.samples import RequestSample
from inferlab.load.workloads import Lengths, Source, random_requests
from inferlab.measure.kv_transfer import Transfers
from inferlab.measure.metrics_watch import cache_config
from inferlab.measure.under_test import UnderTest

PROMPTS = (1024, 4096, 8192, 16384, 30000)
OUTPUT = 8
FILLING = 2000  # tokens of the prompts that turn the cache over
ROUNDS = 1.2  # so often


def measure(engine: UnderTest, given: dict[str, Any]) -> Iterator[Series]:
    """Each prompt length's series, shortest first.

    Args:
        given: `prompts` (tokens); `turn_over`: whether to measure the used cache too (true).

    Yields:
        `handover_bytes`, `handover_descriptors`, `handover_ms`, `post_ms`, `handover_bytes_per_s`,
        `ttft_ms`; `predicted_bytes` where the shape is known. Labels: `prompt`, and `cache`:
        `fresh` (as it was found) or `used` (after every block has been given back once).

    Raises:
        LabError: there is no decode worker, a request failed, or no KV cache was moved.
    """
    if not engine.workers.get("decode"):
        raise LabError("这个部署没有 decode worker", remedy="engines 写一个 prefill/decode 部署")
    prompts = [int(prompt) for prompt in given.get("prompts", PROMPTS)]
    for prompt in prompts:
        yield from _point(engine, prompt, "fresh")
    if given.get("turn_over", True):
        turn_over(engine)
        for prompt in prompts:
            yield from _point(engine, prompt, "used")


def turn_over(engine: UnderTest) -> None:
    """Send prompts until every block of every worker's KV cache has been given back once."""
    sizes = [cache_config(url) for urls in engine.workers.values() for url in urls]
    tokens = max(int(size["num_gpu_blocks"]) * int(size["block_size"]) for size in sizes)
    # Prompts are spread over the workers of a role.
    number = ceil(ROUNDS * tokens / FILLING) * max(map(len, engine.workers.values()))
    specs = random_requests(
        number, Lengths(FILLING), Lengths(1), Random(f"{engine.seed}/turn-over"),
        source=Source(engine.vocabulary),
    )  # fmt: skip
    with engine.mark("turn over"):
        all_answered(run_closed_loop(engine.endpoint, specs, 4, check=False))


def _point(engine: UnderTest, prompt: int, cache: str) -> Iterator[Series]:
    found: list[tuple[Transfers, RequestSample]] = []
    # The first is not counted: at the very first the workers shake hands.
    for repeat in range(engine.repeats + 1):
        with engine.mark(f"handover {prompt} {cache}"):
            found.append(_once(engine, prompt, f"{cache}/{repeat}"))
    moved, samples = zip(*found[1:], strict=True)
    labels = {"prompt": prompt, "cache": cache}
    yield Series("handover_bytes", "byte", [each.bytes for each in moved], labels)
    yield Series("handover_descriptors", "", [each.descriptors for each in moved], labels)
    yield Series("handover_ms", "ms", [1e3 * each.seconds for each in moved], labels)
    yield Series("post_ms", "ms", [1e3 * each.post_seconds for each in moved], labels)
    yield Series("handover_bytes_per_s", "byte/s", [each.bytes_per_s for each in moved], labels)
    yield Series("ttft_ms", "ms", [each.ttft_ms or 0.0 for each in samples], labels)
    if engine.shape:
        block = int(cache_config(engine.workers["decode"][0])["block_size"])
        predicted = float(handover_bytes(engine.shape, prompt, block))
        yield Series("predicted_bytes", "byte", [predicted], labels)


def _once(engine: UnderTest, prompt: int, repeat: str) -> tuple[Transfers, RequestSample]:
    random = Random(f"{engine.seed}/{prompt}/{repeat}")
    specs = random_requests(
        1, Lengths(prompt), Lengths(OUTPUT), random, source=Source(engine.vocabulary)
    )
    before = Transfers.read(engine.workers["decode"])
    sample = all_answered(run_closed_loop(engine.endpoint, specs, 1, check=False))[0]
    moved = Transfers.read(engine.workers["decode"]).since(before)
    if why := moved.problem(1):
        raise LabError(f"{prompt} token 的 prompt：{why}", remedy="看 decode worker 的日志")
    return moved, sample
