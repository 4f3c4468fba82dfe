"""Time short device work so that the figure can be trusted, on a CUDA GPU or a CPU.

Runs where torch is; imports nothing of it until it is called.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import psutil


@dataclass(frozen=True)
class Series:
    """Repeated values of one figure under one condition.

    Attributes:
        name: what was measured, in the field's term, e.g. `matmul`.
        unit: of each value: `flop/s`, `byte/s`, `s`, …
        values: one a repeat; each repeat is already a mean over many runs of the work.
        labels: the condition, e.g. `{"dtype": "bf16", "size": 8192}`.
    """

    name: str
    unit: str
    values: list[float]
    labels: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_torch() -> Any:
    """The torch module.

    It belongs to the engine's environment, not to the lab's, so nothing here may import it at the
    top, and its types are unknown.
    """
    return import_module("torch")


def device_name() -> str:
    """`cuda` when torch sees a GPU, else `cpu`."""
    torch = load_torch()

    return "cuda" if torch.cuda.is_available() else "cpu"


def free_bytes(device: str) -> int:
    """Memory that can be allocated now on the GPU, or on the host for `cpu`."""
    if device == "cuda":
        return load_torch().cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def seconds_per_run(
    work: Callable[[], object], device: str, *, repeats: int = 5, budget_s: float = 0.05
) -> list[float]:
    """Seconds that one call of `work` takes, once per repeat.

    Each repeat runs the work as often as fits in `budget_s` (at least twice) between two marks:
    CUDA events on a GPU, so that the launch of asynchronous kernels is not what is timed, and
    `perf_counter` on a CPU. The first calls (compilation, caches, clocks) are not counted.
    """
    for _ in range(3):
        work()
    once = min(_timed(work, device, 1) for _ in range(2))
    runs = max(2, min(10_000, round(budget_s / max(once, 1e-7))))
    return [_timed(work, device, runs) for _ in range(repeats)]


def _timed(work: Callable[[], object], device: str, runs: int) -> float:
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(runs):
            work()
        return (time.perf_counter() - started) / runs
    torch = load_torch()

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(runs):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / runs


def as_graph(work: Callable[[], object], device: str) -> Callable[[], object]:
    """The same work as one CUDA graph, so that gaps between launches disappear; on a CPU, the work
    itself."""
    if device == "cpu":
        return work
    torch = load_torch()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay() -> None:
        # Holding `work` keeps the tensors alive whose addresses the graph has captured.
        _ = work
        graph.replay()

    return replay
