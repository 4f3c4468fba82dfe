"""The memory ledger: where a device's memory goes when an engine serves a model.

Weights and KV cache are counted exactly. Activations and the runtime's own share are estimates: an
engine finds them by running once, and prints them when it starts; `measured` puts those in.
"""

from dataclasses import dataclass

from inferlab.arithmetic.feed_forward import FeedForward, MoeMlp
from inferlab.arithmetic.kv_cache import (
    STATE_DTYPE,
    Capacity,
    Device,
    kv_bytes_per_token,
    max_concurrency,
    state_bytes_per_sequence,
)
from inferlab.arithmetic.mixers import Mixer
from inferlab.arithmetic.parameters import count_parameters, weight_bytes
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError

GIB = 1 << 30

# What vLLM 0.32.0 reported on an H200 (results/h200/chapter05/kv_capacity.json and its log):
# 0.28 GiB of CUDA context and libraries, 0.94 GiB set aside for CUDA graphs of its default sizes.
# On a CPU, a rule of thumb: the interpreter with torch and vLLM loaded.
RUNTIME_BYTES: dict[Device, int] = {"gpu": round((0.28 + 0.94) * GIB), "cpu": round(0.8 * GIB)}

# A logit row while sampling: bf16 logits and their fp32 copy (vllm/v1/worker/gpu/sample).
SAMPLING_BYTES_PER_LOGIT = 2 + 4
# Penalties keep a count for every token of the vocabulary and every sequence: int32, and one bit.
STATE_BYTES_PER_LOGIT = 4 + 1 / 8


@dataclass(frozen=True)
class LedgerRow:
    """One row.

    Attributes:
        key: `weights`, `kv_cache`, `activations`, `runtime` or `free`.
        label, formula: for the reader, in Chinese; the formula carries this model's numbers.
        exact: counted, not estimated.
    """

    key: str
    label: str
    bytes: int
    formula: str
    exact: bool

    @property
    def gib(self) -> float:
        return self.bytes / GIB


@dataclass(frozen=True)
class MemoryLedger:
    """The rows and what the cache's share holds.

    Attributes:
        rows: add up to `memory_bytes`, unless there is a shortfall.
        shortfall_bytes: what is missing for weights, activations and runtime; 0 when they fit.
        capacity: blocks and concurrency of the KV cache row, as the engine counts them.
    """

    rows: tuple[LedgerRow, ...]
    memory_bytes: int
    shortfall_bytes: int
    capacity: Capacity

    def row(self, key: str) -> LedgerRow:
        """The row with that key."""
        return next(row for row in self.rows if row.key == key)

    @property
    def fits(self) -> bool:
        """The engine would start: everything fits, and one longest request does too."""
        return self.shortfall_bytes == 0 and self.capacity.max_concurrency >= 1


def memory_ledger(
    shape: ModelShape,
    *,
    memory_bytes: int,
    max_model_len: int,
    weight_dtype: str = "auto",
    kv_dtype: str = "auto",
    max_num_batched_tokens: int = 8192,
    max_num_seqs: int = 256,
    utilization: float = 0.92,
    device: Device = "gpu",
    block_size: int | None = None,
    runtime_bytes: int | None = None,
    kv_cache_bytes: int | None = None,
    measured: dict[str, int] | None = None,
) -> MemoryLedger:
    """Where the memory goes.

    Args:
        memory_bytes: the device's memory, or a CPU's share for the engine.
        utilization: the share the engine may use (`--gpu-memory-utilization`; vLLM 0.32: 0.92).
        device, block_size: as in `max_concurrency`.
        runtime_bytes: context, libraries and CUDA graphs, or a CPU worker's Python and libraries;
            None for this module's estimate.
        kv_cache_bytes: a fixed cache (`--kv-cache-memory-bytes`) instead of what is left over.
        measured: bytes by row key that the engine reported (`weights`, `activations`, `runtime`),
            to be used instead of this module's.

    Raises:
        LabError: memory or utilization make no sense, or a dtype is unknown.
    """
    _check(memory_bytes, utilization)
    used = [
        _weights_row(shape, weight_dtype),
        activations_row(shape, max_num_batched_tokens, max_num_seqs),
        _runtime_row(shape, device, max_num_seqs, runtime_bytes),
    ]
    used = [_with_measured(row, measured or {}) for row in used]
    budget = int(memory_bytes * utilization) - sum(row.bytes for row in used)
    fixed = kv_cache_bytes is not None
    kv_bytes = kv_cache_bytes if fixed else max(budget, 0)
    capacity = max_concurrency(
        shape,
        kv_bytes,
        max_model_len,
        block_size,
        device=device,
        kv_dtype=kv_dtype,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    # What is left over is only as exact as what was subtracted.
    exact = fixed or all(row.exact for row in used)
    formula = _kv_formula(shape, kv_dtype, device, fixed)
    rows = [used[0], LedgerRow("kv_cache", "KV cache", kv_bytes, formula, exact), *used[1:]]
    free = memory_bytes - sum(row.bytes for row in rows)
    all_exact = all(row.exact for row in rows)
    rows.append(_free_row(max(free, 0), utilization, fixed, all_exact))
    shortfall = max(-free if fixed else -budget, 0)
    return MemoryLedger(tuple(rows), memory_bytes, shortfall, capacity)


def _check(memory_bytes: int, utilization: float) -> None:
    if memory_bytes <= 0 or not 0 < utilization <= 1:
        raise LabError(
            f"显存 {memory_bytes} 字节、utilization {utilization} 不成立",
            remedy="显存须为正，utilization 在 0 与 1 之间",
        )


def activations_row(shape: ModelShape, max_num_batched_tokens: int, max_num_seqs: int) -> LedgerRow:
    """The peak of intermediate results: a full prefill step, or sampling, whichever is larger.

    An estimate: it counts the widest layer's live tensors and leaves out allocator rounding.
    """
    widest = max(
        _live_elements(shape, part)
        for layer in shape.layers
        for part in (layer.mixer, layer.mlp)
        if part
    )
    forward = max_num_batched_tokens * widest * shape.dtype_bytes
    sampling = max_num_seqs * shape.vocab_size * SAMPLING_BYTES_PER_LOGIT
    formula = (
        f"max(前向 {max_num_batched_tokens:,} token × {widest:,} 元素 × {shape.dtype_bytes} B，"
        f"采样 {max_num_seqs:,} × 词表 {shape.vocab_size:,} × {SAMPLING_BYTES_PER_LOGIT} B)"
    )
    return LedgerRow("activations", "激活峰值", max(forward, sampling), formula, False)


def _live_elements(shape: ModelShape, part: Mixer | FeedForward) -> int:
    """Elements a token that are alive at once in a layer's part, residual and input included.

    The product's output and what is made of it, both twice: the allocator has not given back a
    layer's buffers when the next one's are taken (20 x hidden in all for Qwen3-8B, as vLLM 0.32.0
    found on an H200: 1.25 GiB at 8,192 tokens). Routed experts count once for each expert a token
    takes, their outputs kept until they are added up.
    """
    residual = 2 * shape.hidden_size
    if isinstance(part, MoeMlp):
        experts = [matrix for matrix in part.matrices if matrix.expert]
        return residual + sum(
            matrix.used * max(matrix.inputs, matrix.outputs) for matrix in experts
        )
    first, last = part.matrices[0], part.matrices[-1]
    return residual + 2 * (first.outputs + last.inputs)


def _runtime_row(
    shape: ModelShape, device: Device, max_num_seqs: int, given: int | None
) -> LedgerRow:
    if given is not None:
        return LedgerRow("runtime", "运行时", given, "指定值", False)
    if device == "cpu":
        return LedgerRow(
            "runtime", "运行时", RUNTIME_BYTES["cpu"], "Python 进程与库（经验值）", False
        )
    state = round(max_num_seqs * shape.vocab_size * STATE_BYTES_PER_LOGIT)
    formula = (
        f"CUDA context、库和 CUDA graph {RUNTIME_BYTES['gpu'] / GIB:.2f} GiB（H200 实测）"
        f" + 采样状态 {max_num_seqs:,} × 词表 {shape.vocab_size:,} × {STATE_BYTES_PER_LOGIT} B"
    )
    return LedgerRow("runtime", "运行时", RUNTIME_BYTES["gpu"] + state, formula, False)


def _weights_row(shape: ModelShape, weight_dtype: str) -> LedgerRow:
    total = count_parameters(shape).total
    size = weight_bytes(shape, weight_dtype)
    name = shape.weight_format if weight_dtype == "auto" else weight_dtype
    formula = f"{total:,} 参数，{name} 平均 {size / total:.3f} B/参数（含 scale）"
    return LedgerRow("weights", "权重", size, formula, True)


def _kv_formula(shape: ModelShape, kv_dtype: str, device: Device, fixed: bool) -> str:
    formula = (
        f"{'指定大小' if fixed else '预算剩余'}；每 token {kv_bytes_per_token(shape, kv_dtype):,} B"
    )
    if any(mixer.window for mixer in shape.mixers):
        formula += "（滑窗层只保留窗口）"
    if state := state_bytes_per_sequence(shape, STATE_DTYPE[device]):
        formula += f"，每条序列另有状态 {state:,} B"
    return formula


def _free_row(free: int, utilization: float, fixed_cache: bool, exact: bool) -> LedgerRow:
    formula = "显存 − 以上各项" if fixed_cache else f"引擎不用的 {1 - utilization:.0%}"
    return LedgerRow("free", "未使用", free, formula, exact or not fixed_cache)


def _with_measured(row: LedgerRow, measured: dict[str, int]) -> LedgerRow:
    if row.key not in measured:
        return row
    return LedgerRow(row.key, row.label, measured[row.key], "引擎启动日志实测", True)
