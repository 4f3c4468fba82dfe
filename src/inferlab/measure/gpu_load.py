"""What GPU-Util hides: run known work on one GPU and read the counters beside it.

Each phase keeps the GPU busy in a way that we know from its arithmetic: one thread that spins, a
copy that only moves bytes, a layer's decode and prefill. Needs a GPU; run by `./lab record`, in an
interpreter that has torch:

python -m inferlab.measure.gpu_load --config path/to/config.json --out gpu_load.json
"""

import time
from collections.abc import Callable
from typing import Any

from inferlab.errors import LabError
from inferlab.hardware.experiment import run
from inferlab.hardware.nvml import nvml_session
from inferlab.hardware.phases import PhaseRecorder, summarize
from inferlab.hardware.timing import Series, as_graph, load_torch
from inferlab.measure.layer import LayerSize, RandomLayer, decode_core, fastest, prefill_core

PHASE_SECONDS = 2.0


def phases(layer: RandomLayer) -> dict[str, Callable[[], Any] | None]:
    """Name → work of a few milliseconds; `idle` has none."""
    torch = layer.torch
    source = torch.randint(0, 127, (1 << 30,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    square = layer.random(8192, 8192)
    return {
        "idle": None,
        "one_thread": lambda: torch.cuda._sleep(5_000_000),
        "copy": lambda: target.copy_(source),
        "decode_batch_1": _decode(layer, 1),
        "decode_batch_64": _decode(layer, 64),
        "prefill_8192": _prefill(layer, 8192),
        "matmul_8192": lambda: square @ square,
    }


def _decode(layer: RandomLayer, batch: int, context: int = 4096) -> Callable[[], Any]:
    x = layer.random(batch, layer.size.hidden)
    _, core = fastest(decode_core(layer, batch, context), "cuda")
    copies = core.copies  # type: ignore[attr-defined]

    def work() -> Any:
        return [layer.whole(x, lambda: None) for _ in range(copies)], core()

    return as_graph(work, "cuda")


def _prefill(layer: RandomLayer, tokens: int) -> Callable[[], Any]:
    x = layer.random(tokens, layer.size.hidden)
    _, core = fastest(prefill_core(layer, tokens), "cuda")
    return as_graph(lambda: layer.whole(x, core), "cuda")


def keep_busy(work: Callable[[], Any] | None, seconds: float) -> None:
    """Run `work` again and again, never more than a few runs ahead of the GPU."""
    torch = load_torch()

    until = time.monotonic() + seconds
    if work is None:
        time.sleep(seconds)
        return
    while time.monotonic() < until:
        for _ in range(8):
            work()
        torch.cuda.synchronize()


def measure(device: str, repeats: int, config: dict[str, Any], hz: float = 5.0) -> list[Series]:
    """Mean of each counter, once a repeat and phase.

    Phases are interleaved, so drift meets all alike.

    Raises:
        LabError: there is no GPU to read counters from.
    """
    if device != "cuda":
        raise LabError("这个实验读 GPU 计数器，但没有找到 NVIDIA GPU", remedy="换到有 GPU 的机器")
    found: dict[tuple[str, str], list[float]] = {}
    with load_torch().inference_mode(), nvml_session():
        works = phases(RandomLayer(LayerSize.from_config(config), device))
        for _ in range(repeats):
            for phase, values in _one_round(works, hz).items():
                for metric, value in values.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        found.setdefault((phase, metric), []).append(float(value))
    return [
        Series(metric, _unit(metric), values, {"phase": phase})
        for (phase, metric), values in found.items()
    ]


def _one_round(works: dict[str, Callable[[], Any] | None], hz: float) -> dict[str, dict[str, Any]]:
    with PhaseRecorder(hz=hz) as recorder:
        for phase, work in works.items():
            with recorder.phase(phase):
                keep_busy(work, PHASE_SECONDS)
    return {name: _flat(summary) for name, summary in summarize(recorder.samples).items()}


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    """Throttle reasons as metrics of their own: the share of samples in which each was active."""
    reasons = summary.pop("throttle_reasons")
    return summary | {f"throttled_by_{name}": share for name, share in reasons.items()}


def _unit(metric: str) -> str:
    endings = {"_percent": "%", "_bytes": "byte", "_per_s": "byte/s", "_w": "W", "_j": "J",
               "_mhz": "MHz", "_c": "°C", "_active": "1", "_occupancy": "1", "_s": "s"}  # fmt: skip
    return next((unit for ending, unit in endings.items() if metric.endswith(ending)), "1")


if __name__ == "__main__":
    run(__doc__, measure)
