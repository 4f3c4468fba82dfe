"""What happens when the KV cache runs out: how often the scheduler preempts, and what it costs.

vLLM's scheduler takes the KV blocks of a running request and puts it back into the queue; when its
turn comes it is prefilled again (vllm/v1/core/sched/scheduler.py). `/metrics` counts it.
"""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.workloads import Lengths, random_requests
from inferlab.measure.metrics_watch import watch
from inferlab.measure.summary import summarise

REQUEST_LIMIT_S = 300.0
DEFAULTS = {"concurrency": 64, "requests": 192, "prompt": 1024, "output": 256}
FIGURES = (
    ("preemptions", "", ""),
    ("kv_usage_peak", "", ""),
    ("output_tokens_per_s", "", "tok/s"),
    ("itl_ms", "p50", "ms"),
    ("itl_ms", "p99", "ms"),
)  # name, part, unit


def measure(url: str, folder: Path, with_: Mapping[str, Any]) -> list[Series]:
    """More at once than the cache can hold to the end.

    Args:
        url: the server's address.
        folder: not used.
        with_: `requests` of `prompt` and `output` tokens, `concurrency` at a time; `repeats` (5).

    Returns:
        one value a repeat: `preemptions`; `kv_usage_peak` (share of blocks);
        `output_tokens_per_s`; `itl_ms` with `part` `p50` and `p99`.

    Raises:
        LabError: a request failed, or `/metrics` cannot be read.
    """
    given = DEFAULTS | dict(with_)
    rows = [_run(url, given, repeat) for repeat in range(int(given.get("repeats", 5)))]
    return [
        Series(name, unit, [row[name, part] for row in rows], {"part": part} if part else {})
        for name, part, unit in FIGURES
    ]


def _run(url: str, given: Mapping[str, Any], repeat: int) -> dict[tuple[str, str], float]:
    prompt, output = (Lengths.parse(str(given[name])) for name in ("prompt", "output"))
    specs = random_requests(int(given["requests"]), prompt, output, Random(f"preemption/{repeat}"))
    with watch(url) as seen:
        samples = run_closed_loop(
            Endpoint(url=url, timeout_s=REQUEST_LIMIT_S), specs, int(given["concurrency"])
        )
    table, summary = seen.table(), summarise(all_answered(samples))
    itl = summary.itl_ms
    return {
        ("preemptions", ""): table.total("preemptions"),
        ("kv_usage_peak", ""): table.peak("kv_usage"),
        ("output_tokens_per_s", ""): summary.output_tokens_per_s,
        ("itl_ms", "p50"): itl.p50 if itl else 0.0,
        ("itl_ms", "p99"): itl.p99 if itl else 0.0,
    }
