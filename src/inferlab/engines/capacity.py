"""What a lab's engine should be able to hold, by arithmetic, before it says so itself."""

from typing import Any

import yaml

from inferlab.arithmetic.kv_cache import Capacity
from inferlab.arithmetic.ledger import GIB, MemoryLedger, memory_ledger
from inferlab.arithmetic.shapes import ModelShape
from inferlab.engines.native import configuration
from inferlab.hardware.host import describe_host


def engine_options(lab: str, engine: str, name: str = "vllm") -> dict[str, Any]:
    """The engine's configuration file of a lab, as `vllm serve --config` reads it."""
    return yaml.safe_load(configuration(lab, engine, name).read_text(encoding="utf-8"))


def options_here(lab: str, name: str = "vllm") -> dict[str, Any]:
    """The same for this machine: the GPU's file where there is a GPU, else the CPU's."""
    return engine_options(lab, "gpu" if describe_host().gpus else "cpu", name)


def predict_ledger(lab: str, shape: ModelShape) -> MemoryLedger:
    """The memory ledger of a lab's engine on this machine's first GPU, or on its CPU.

    A CPU engine's cache is fixed by `kv-cache-memory-bytes`; a GPU engine's is what
    `gpu-memory-utilization` leaves after weights, activations and runtime, the last two estimated.
    """
    return ledger_for(options_here(lab), shape)


def ledger_for(
    options: dict[str, Any], shape: ModelShape, measured: dict[str, int] | None = None
) -> MemoryLedger:
    """The same for an engine with these options (their `dtype` counts), on this machine.

    Args:
        measured: bytes by row that the engine reported, instead of estimates.
    """
    host = describe_host()
    memory_bytes, tokens, seqs = host.memory.total_bytes, 8192, 256
    if host.gpus:
        gpu = host.gpus[0]
        memory_bytes = (gpu.memory_bytes or memory_bytes) - (gpu.reserved_bytes or 0)
        tokens, seqs = batch_defaults(gpu.name, memory_bytes)
    return memory_ledger(
        shape.computed_in(options.get("dtype", "auto")),
        memory_bytes=memory_bytes,
        max_model_len=options["max-model-len"],
        kv_dtype=options.get("kv-cache-dtype", "auto"),
        max_num_batched_tokens=options.get("max-num-batched-tokens", tokens),
        max_num_seqs=options.get("max-num-seqs", seqs),
        utilization=options.get("gpu-memory-utilization", 0.92),
        device="gpu" if host.gpus else "cpu",
        block_size=options.get("block-size"),
        kv_cache_bytes=options.get("kv-cache-memory-bytes"),
        measured=measured,
    )


def batch_defaults(gpu: str, memory_bytes: int) -> tuple[int, int]:
    """vLLM 0.32's own `max-num-batched-tokens` and `max-num-seqs` of an API server on a GPU.

    Source: `get_batch_defaults` in vllm/engine/arg_utils.py.
    """
    if memory_bytes >= 160 * GIB:
        return 16384, 1024
    if memory_bytes >= 70 * GIB and "a100" not in gpu.lower():
        return 8192, 1024
    return 2048, 256


def predict_capacity(lab: str, shape: ModelShape) -> Capacity:
    """Blocks, tokens and max concurrency of the KV cache in `predict_ledger`."""
    return predict_ledger(lab, shape).capacity
