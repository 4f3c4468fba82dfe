"""Read a torch profiler's trace of an engine and say where the time of its decode steps went.

The worker marks each step with an annotation `execute_context_P(p)_generation_D(d)`: P requests in
prefill, D in decode (vllm/v1/worker/gpu_worker.py). On a GPU a kernel belongs to the step during
which it was launched, which its correlation id tells; replays of a CUDA graph carry the id of the
graph's launch, so their kernels are seen one by one. On a CPU the operators themselves are the
work.
"""

import gzip
import json
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferlab.errors import LabError
from inferlab.measure.kernel_classes import GAPS, part_of

_STEP = re.compile(r"execute_context_(\d+)\(\d+\)_generation_(\d+)\(\d+\)")
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
MICRO = 1e-6  # the trace's unit


@dataclass(frozen=True)
class Event:
    """One piece of work: kernel, copy or operator; times in seconds."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class StepTimes:
    """Mean seconds of one decode step.

    Attributes:
        seconds: part (see `kernel_classes.PARTS`) → seconds; `gaps` included, so they add up to
            `total_s`.
        kernels: kernel's name → (calls a step, seconds a step).
        total_s: from one step's first piece of work to the next step's.
        steps: steps averaged.
        device: `cuda` or `cpu`.
    """

    seconds: dict[str, float]
    kernels: dict[str, tuple[float, float]]
    total_s: float
    steps: int
    device: str


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a Chrome trace, gzipped or not.

    Raises:
        LabError: it is no such file.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return json.loads(raw)["traceEvents"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path.name} 不是 torch profiler 的 trace（{error}）") from None


def decode_steps(events: Sequence[Mapping[str, Any]], batch: int) -> StepTimes:
    """Where the time of the pure decode steps with `batch` sequences went.

    The first and the last step of the trace only bound the others: the profiler may have cut them.

    Raises:
        LabError: the trace holds fewer than three such steps in a row.
    """
    steps = sorted((e for e in events if _is_step(e)), key=lambda e: e["ts"])
    kept = longest_run([_decodes(step) == batch for step in steps])
    if len(kept) < 3:
        raise LabError(
            f"trace 里只有 {len(kept)} 个连续的 batch {batch} decode step",
            remedy="加大 with.steps，或检查请求是否同时在途",
        )
    bounds = [step["ts"] * MICRO for step in steps]
    if any(event.get("cat") in DEVICE_WORK for event in events):
        return _device_steps(events, bounds, kept)
    return _host_steps(events, steps, kept)


def longest_run(flags: Sequence[bool]) -> range:
    """Indices of the longest run of True.

    >>> longest_run([True, False, True, True])
    range(2, 4)
    """
    best, start = range(0), 0
    for place, flag in enumerate([*flags, False]):
        if not flag:
            best = max(best, range(start, place), key=len)
            start = place + 1
    return best


def _is_step(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "user_annotation" and bool(_STEP.search(event["name"]))


def _decodes(step: Mapping[str, Any]) -> int:
    """Sequences of a pure decode step; -1 when a prefill shares it."""
    found = _STEP.search(step["name"])
    return int(found[2]) if found and found[1] == "0" else -1


def _device_steps(
    events: Sequence[Mapping[str, Any]], bounds: Sequence[float], kept: range
) -> StepTimes:
    launched = {
        event["args"]["correlation"]: event["ts"] * MICRO
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver")
        and "correlation" in event.get("args", {})
    }
    work: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        at = launched.get(event.get("args", {}).get("correlation"))
        if event.get("cat") in DEVICE_WORK and at is not None:
            work[bisect_right(bounds, at) - 1].append(_event(event))
    first, last = kept[0], kept[-1]
    inner = [event for step in range(first + 1, last) for event in work[step]]
    if not inner or not work[last]:
        raise LabError("trace 里的 kernel 对不上任何一步", remedy="trace 应含 CPU 与 CUDA 两类活动")
    begin = min(event.start_s for event in inner)
    end = min(event.start_s for event in work[last])
    return _attribute(exclusive(inner, begin, end), end - begin, last - first - 1, "cuda")


def _host_steps(
    events: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]], kept: range
) -> StepTimes:
    thread = (steps[0]["pid"], steps[0]["tid"])
    begin, end = (steps[kept[place]]["ts"] * MICRO for place in (1, -1))
    inner = [
        _event(event)
        for event in events
        if event.get("cat") == "cpu_op" and (event["pid"], event["tid"]) == thread
    ]
    inner = [event for event in inner if begin <= event.start_s < end]
    return _attribute(innermost(inner), end - begin, len(kept) - 2, "cpu")


def exclusive(
    events: Iterable[Event], begin_s: float = 0.0, end_s: float = float("inf")
) -> list[tuple[str, float]]:
    """Each event's seconds that no event before it covers: overlapping kernels (several streams,
    programmatic dependent launches) count once, for the one that started first."""
    found, covered = [], begin_s
    for event in sorted(events, key=lambda e: (e.start_s, e.end_s)):
        start, end = max(event.start_s, covered), min(event.end_s, end_s)
        found.append((event.name, max(0.0, end - start)))
        covered = max(covered, end)
    return found


def innermost(events: Iterable[Event]) -> list[tuple[str, float]]:
    """Each nested operator's own seconds: its children's time is theirs."""
    own: list[float] = []
    names: list[str] = []
    open_at: list[tuple[int, float]] = []  # place in `own`, end
    for event in sorted(events, key=lambda e: (e.start_s, -e.end_s)):
        while open_at and open_at[-1][1] <= event.start_s:
            open_at.pop()
        if open_at:
            own[open_at[-1][0]] -= min(event.end_s, open_at[-1][1]) - event.start_s
        names.append(event.name)
        own.append(event.end_s - event.start_s)
        open_at.append((len(own) - 1, event.end_s))
    return [(name, max(0.0, seconds)) for name, seconds in zip(names, own, strict=True)]


def _attribute(
    shares: Sequence[tuple[str, float]], wall_s: float, steps: int, device: str
) -> StepTimes:
    seconds: dict[str, float] = defaultdict(float)
    totals: dict[str, float] = defaultdict(float)
    for name, share in shares:
        seconds[part_of(name)] += share / steps
        totals[name] += share / steps
    calls = Counter(name for name, _ in shares)
    kernels = {name: (calls[name] / steps, total) for name, total in totals.items()}
    seconds[GAPS] = max(0.0, wall_s / steps - sum(seconds.values()))
    return StepTimes(dict(seconds), kernels, wall_s / steps, steps, device)


def _event(event: Mapping[str, Any]) -> Event:
    return Event(event["name"], event["ts"] * MICRO, (event["ts"] + event["dur"]) * MICRO)
