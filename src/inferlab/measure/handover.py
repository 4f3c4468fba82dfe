"""The handover of a prompt's KV cache from the prefill to the decode worker: bytes, time, rate.

One prompt at a time, prompts that share nothing. Bytes and seconds are the decode worker's own
(`kv_transfer`); beside them the bytes that the model's shape predicts, and what the client waited.
"""

from collections.abc import Iterator
from math import ceil
from random import Random
from typing import Any

from inferlab.arithmetic.kv_cache import kv_bytes_per_token
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.samples import RequestSample
from inferlab.load.workloads import Lengths, Source, random_requests
from inferlab.measure.kv_transfer import Transfers
from inferlab.measure.metrics_watch import cache_config
from inferlab.measure.under_test import UnderTest

PROMPTS = (1024, 2048, 4096, 8192, 16384, 30000)
OUTPUT = 8


def measure(engine: UnderTest, given: dict[str, Any]) -> Iterator[Series]:
    """Each prompt length's series, shortest first.

    Args:
        given: `prompts` (tokens).

    Yields:
        `handover_bytes`, `handover_descriptors`, `handover_ms`, `post_ms`, `handover_bytes_per_s`,
        `ttft_ms`; `predicted_bytes` where the shape is known. Label: `prompt`.

    Raises:
        LabError: there is no decode worker, a request failed, or no KV cache was moved.
    """
    if not engine.workers.get("decode"):
        raise LabError("这个部署没有 decode worker", remedy="engines 写一个 prefill/decode 部署")
    for prompt in given.get("prompts", PROMPTS):
        yield from _point(engine, int(prompt))


def _point(engine: UnderTest, prompt: int) -> Iterator[Series]:
    found: list[tuple[Transfers, RequestSample]] = []
    # The first is not counted: at the very first the workers shake hands.
    for repeat in range(engine.repeats + 1):
        with engine.mark(f"handover {prompt}"):
            found.append(_once(engine, prompt, repeat))
    moved, samples = zip(*found[1:], strict=True)
    labels = {"prompt": prompt}
    yield Series("handover_bytes", "byte", [each.bytes for each in moved], labels)
    yield Series("handover_descriptors", "", [each.descriptors for each in moved], labels)
    yield Series("handover_ms", "ms", [1e3 * each.seconds for each in moved], labels)
    yield Series("post_ms", "ms", [1e3 * each.post_seconds for each in moved], labels)
    yield Series("handover_bytes_per_s", "byte/s", [each.bytes_per_s for each in moved], labels)
    yield Series("ttft_ms", "ms", [each.ttft_ms or 0.0 for each in samples], labels)
    if engine.shape:
        block = int(cache_config(engine.workers["decode"][0])["block_size"])
        tokens = block * ceil(prompt / block)
        predicted = float(kv_bytes_per_token(engine.shape) * tokens)
        yield Series("predicted_bytes", "byte", [predicted], labels)


def _once(engine: UnderTest, prompt: int, repeat: int) -> tuple[Transfers, RequestSample]:
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
