"""The KV cache that arithmetic predicts against the one that the engine reports at its start."""

import re
from collections.abc import Iterator
from typing import Any

from inferlab.arithmetic.kv_cache import Capacity, Device, max_concurrency
from inferlab.arithmetic.shapes import ModelShape
from inferlab.engines.capacity import ledger_for
from inferlab.engines.startup_log import StartupReport
from inferlab.errors import LabError
from inferlab.hardware.timing import Series

GIB = 2**30
# vLLM 0.32: gpu_worker.py ("Free memory on device … Actual usage is …") and gpu_model_runner.py.
_MEMORY = {
    "consumed": r"Actual usage is ([\d.]+) GiB for consumed memory",
    "peak_activation": r"([\d.]+) GiB for peak activation",
    "cuda_graphs": r"Graph capturing finished in [\d.]+ secs, took (-?[\d.]+) GiB",
}
_BLOCKS = r'num_gpu_blocks="(\d+)"'


def measure(
    report: StartupReport, log: str, metrics: str, options: dict[str, Any], shape: ModelShape,
    device: Device,
) -> Iterator[Series]:  # fmt: skip
    """Figures of one started engine; single values, as nothing varies between looks.

    Args:
        report: read from the log (or from `/metrics` where the log does not say).
        metrics: the engine's `/metrics`.
        options: the engine's configuration.

    Yields:
        `kv_tokens`, `kv_blocks`, `max_concurrency` with label `source`: `reported`,
        `from_available` (the log's bytes for the cache, counted by arithmetic) and `before_start`
        (the memory ledger: weights exact, activations and runtime estimated); `error_pct`
        (predicted ÷ reported - 1) by `figure` and `source`; `memory_gib` with label `row`, from
        the log.

    Raises:
        LabError: the engine reports no KV cache.
    """
    if not report.kv_cache_tokens or not report.max_model_len:
        raise LabError("引擎日志里没有 KV cache size", remedy="看引擎日志，版本可能变了")
    reported: dict[str, float] = {
        "kv_tokens": report.kv_cache_tokens,
        "max_concurrency": report.max_concurrency or 0.0,
    }
    if blocks := re.search(_BLOCKS, metrics):
        reported["kv_blocks"] = int(blocks[1])
    yield from _rows("reported", reported)
    whole = options | {"max-model-len": report.max_model_len}
    for source, capacity in _predictions(report, whole, shape, device):
        found = _figures(capacity)
        yield from _rows(source, found)
        for name in reported.keys() & found.keys():
            if reported[name]:
                error = (found[name] / reported[name] - 1) * 100
                yield Series("error_pct", "%", [error], {"figure": name, "source": source})
    yield from _memory(report, log)


def _predictions(
    report: StartupReport, options: dict[str, Any], shape: ModelShape, device: Device
) -> Iterator[tuple[str, Capacity]]:
    yield "before_start", ledger_for(options, shape).capacity
    fixed = options.get("kv-cache-memory-bytes")
    available = fixed or round((report.available_kv_cache_gib or 0) * GIB)
    if available:
        yield "from_available", max_concurrency(
            shape, available, options["max-model-len"], options.get("block-size"), device=device,
            kv_dtype=str(options.get("kv-cache-dtype", "auto")),
            max_num_batched_tokens=options.get("max-num-batched-tokens", 8192),
        )  # fmt: skip


def _figures(capacity: Capacity) -> dict[str, float]:
    return {"kv_tokens": capacity.tokens, "kv_blocks": capacity.num_blocks,
            "max_concurrency": capacity.max_concurrency}  # fmt: skip


def _rows(source: str, found: dict[str, float]) -> Iterator[Series]:
    units = {"kv_tokens": "token", "kv_blocks": "block", "max_concurrency": ""}
    for name, value in found.items():
        yield Series(name, units[name], [float(value)], {"source": source})


def _memory(report: StartupReport, log: str) -> Iterator[Series]:
    found = {"weights": report.model_memory_gib, "kv_cache": report.available_kv_cache_gib}
    for name, pattern in _MEMORY.items():
        match = re.search(pattern, log)
        found[name] = float(match[1]) if match else None
    for row, value in found.items():
        if value is not None:
            yield Series("memory_gib", "GiB", [value], {"row": row})
