"""Chats with a long prompt among them now and then: what the long one waits, what the chats feel.

A step computes at most `max-num-batched-tokens` tokens. A large chunk ends the long prefill in few
steps, and every chat's next token waits for such a step; a small chunk the other way round
(Sarathi-Serve, arXiv 2403.02310). One long prompt interrupts a chat once or a few times: fewer than
one gap in a hundred, so the p99 ITL of large chunks looks as good as that of small ones. What a
chat feels is the longest of its gaps.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load import arrivals
from inferlab.load.arrivals import TimedRequest
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, open_loop
from inferlab.load.samples import RequestSample
from inferlab.load.workloads import Lengths, inject_long, random_requests

REQUEST_LIMIT_S = 300.0
DEFAULTS = {"rate": 8, "prompt": 128, "output": 128, "duration_s": 30,
            "every_s": 2, "long_prompt": 8000, "long_output": 16}  # fmt: skip
FIGURES: dict[tuple[str, str], Callable[[RequestSample], Sequence[float]]] = {
    ("ttft_ms", "long"): lambda sample: [sample.ttft_ms or 0.0],
    ("ttft_ms", "chat"): lambda sample: [sample.ttft_ms or 0.0],
    ("itl_ms", "chat"): lambda sample: sample.itl_ms,
    ("longest_itl_ms", "chat"): lambda sample: [max(sample.itl_ms, default=0.0)],
}
PARTS = (50, 90, 99)


def measure(url: str, folder: Path, with_: Mapping[str, Any]) -> list[Series]:
    """The same load in every repeat but for its prompts and its Poisson times.

    Args:
        url: the server's address.
        folder: not used.
        with_: `rate` of chats a second with `prompt` and `output` tokens, for `duration_s`; a
            prompt of `long_prompt` tokens with `long_output` every `every_s`; `repeats` (5).

    Returns:
        `ttft_ms`, `itl_ms` and `longest_itl_ms` (the longest ITL of each request), one value a
        repeat, labelled `request` (`long` or `chat`) and `part` (`p50`, `p90` or `p99`).

    Raises:
        LabError: a request failed.
    """
    given = DEFAULTS | dict(with_)
    endpoint = Endpoint(url=url, timeout_s=REQUEST_LIMIT_S)
    repeats = int(given.get("repeats", 5))
    runs = [all_answered(open_loop(endpoint, load(given, repeat)).whole())
            for repeat in range(repeats)]  # fmt: skip
    return [
        Series(name, "ms", [_percentile(run, name, label, part) for run in runs],
               {"request": label, "part": f"p{part}"})
        for name, label in FIGURES
        for part in PARTS
    ]  # fmt: skip


def load(given: Mapping[str, Any], repeat: int) -> list[TimedRequest]:
    """One repeat's requests; the lengths and rates are `given`, the rest follows from `repeat`."""
    random = Random(f"chunked-prefill/{repeat}")
    times = list(takewhile(lambda at: at < float(given["duration_s"]),
                           arrivals.poisson(float(given["rate"]), random)))  # fmt: skip
    specs = random_requests(
        len(times), Lengths.parse(str(given["prompt"])), Lengths.parse(str(given["output"])), random
    )
    return inject_long(
        arrivals.schedule(times, specs), float(given["every_s"]), int(given["long_prompt"]),
        int(given["long_output"]), random,
    )  # fmt: skip


def _percentile(run: Sequence[RequestSample], name: str, label: str, part: int) -> float:
    values = [v for sample in run if sample.label == label for v in FIGURES[name, label](sample)]
    if not values:
        raise LabError(f"没有 {label} 请求的 {name}", remedy="加长 duration_s")
    return float(np.percentile(values, part))
