"""What a sequence keeps in memory: KV cache and recurrent state, and how many fit.

Two views. The first half is the model's own need, in bytes. The second half is vLLM 0.32's
bookkeeping in blocks, so that its start-up line ("Maximum concurrency for N tokens per request")
can be predicted to the digit; source: vllm/v1/core/kv_cache_utils.py and
vllm/v1/kv_cache_interface.py. One GPU (no tensor or context parallelism) is assumed.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from inferlab.arithmetic.matrices import dtype_bytes
from inferlab.arithmetic.mixers import LatentAttention, Mixer, Recurrence
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError

Device = Literal["gpu", "cpu"]

GPU_BLOCK_SIZE = 16
CPU_BLOCK_SIZE = 128
CPU_MLA_BLOCK_SIZE = 16
STATE_DTYPE: dict[Device, str] = {"gpu": "auto", "cpu": "fp32"}


def kv_element_bytes(shape: ModelShape, kv_dtype: str = "auto") -> int:
    """Bytes of one cached element; `auto` is the model's dtype, `fp8` is one byte.

    Raises:
        LabError: the dtype is unknown.
    """
    return shape.dtype_bytes if kv_dtype == "auto" else dtype_bytes(kv_dtype)


def kv_bytes_per_token(shape: ModelShape, kv_dtype: str = "auto") -> int:
    """Bytes one more token adds while the sequence is inside every sliding window.

    A full-attention layer adds 2·h_kv·d_head elements, an MLA layer d_c + d_rope, a recurrent one
    none.
    """
    return kv_element_bytes(shape, kv_dtype) * sum(mixer.kv_elements for mixer in shape.mixers)


def kv_bytes_per_sequence(shape: ModelShape, tokens: int, kv_dtype: str = "auto") -> int:
    """Bytes a sequence of `tokens` tokens needs: windows cut off, recurrent state included."""
    element = kv_element_bytes(shape, kv_dtype)
    cached = sum(mixer.kv_elements * seen(mixer, tokens) for mixer in shape.mixers)
    return element * cached + state_bytes_per_sequence(shape)


def state_bytes_per_sequence(shape: ModelShape, state_dtype: str = "auto") -> int:
    """Bytes of recurrent and convolution state of one sequence, whatever its length."""
    return sum(state_bytes(shape, mixer, state_dtype) for mixer in shape.mixers)


def state_bytes(shape: ModelShape, mixer: Mixer, state_dtype: str = "auto") -> int:
    """Bytes of one layer's state of one sequence; 0 for attention.

    `state_dtype` overrides what the config asks for, and `auto` there is the model's dtype.
    """
    if not isinstance(mixer, Recurrence):
        return 0
    dtype = mixer.state_dtype if state_dtype == "auto" else state_dtype
    dtype = shape.dtype if dtype == "auto" else dtype
    return mixer.state_elements * dtype_bytes(dtype) + mixer.conv_elements * shape.dtype_bytes


def seen(mixer: Mixer, tokens: int) -> int:
    """How many of `tokens` cached tokens a layer looks at."""
    return min(tokens, mixer.window) if mixer.window else tokens


@dataclass(frozen=True)
class CacheLayer:
    """One layer's cache as vLLM sees it: what a page holds, and how many a request takes.

    Attributes:
        kind: `full`, `sliding`, `mla` or `state`.
        page_bytes: bytes of one block of this layer.
        block_size: tokens a block.
        spare_states: of a `state`, the copies kept beside the running one for prefix caching.
    """

    kind: str
    page_bytes: int
    block_size: int
    window: int | None = None
    spare_states: int = 0

    def blocks_per_request(self, engine: "EngineLimits") -> int:
        """Blocks that one request of `max_model_len` tokens may hold at once."""
        if self.kind == "state":
            return 1 + (self.spare_states if engine.prefix_caching else 0)
        if self.window is None:
            return ceil(engine.max_model_len / self.block_size)
        # A window need not start at a block's edge, hence one block more.
        tokens = min(self.window - 1 + engine.tokens_in_flight, engine.max_model_len)
        return ceil(tokens / self.block_size) + 1


@dataclass(frozen=True)
class EngineLimits:
    """The engine settings that the block count depends on.

    Attributes:
        max_num_batched_tokens: bounds what a sliding layer holds besides its window.
        block_size: tokens a block before any alignment.
        steps_in_flight: 2 with asynchronous scheduling.
        prefix_caching: hybrid models then keep spare states for each request.
        state_dtype: dtype of recurrent state; `auto` is the config's.
    """

    max_model_len: int
    max_num_batched_tokens: int
    block_size: int
    steps_in_flight: int
    prefix_caching: bool
    state_dtype: str = "auto"

    @property
    def tokens_in_flight(self) -> int:
        return self.max_num_batched_tokens * self.steps_in_flight


def engine_limits(
    shape: ModelShape,
    max_model_len: int,
    *,
    device: Device = "gpu",
    block_size: int | None = None,
    max_num_batched_tokens: int = 8192,
    prefix_caching: bool = True,
) -> EngineLimits:
    """vLLM's defaults on a device.

    The CPU backend takes blocks of 128 tokens (16 with MLA), schedules synchronously and keeps
    recurrent state in fp32 (vllm/platforms/cpu.py).
    """
    if device == "gpu":
        size = block_size or GPU_BLOCK_SIZE
        return EngineLimits(max_model_len, max_num_batched_tokens, size, 2, prefix_caching)
    mla = any(isinstance(mixer, LatentAttention) for mixer in shape.mixers)
    size = CPU_MLA_BLOCK_SIZE if mla else block_size or CPU_BLOCK_SIZE
    dtype = STATE_DTYPE["cpu"]
    return EngineLimits(max_model_len, max_num_batched_tokens, size, 1, prefix_caching, dtype)


@dataclass(frozen=True)
class Capacity:
    """What vLLM prints at start-up.

    Attributes:
        num_blocks: blocks in the pool.
        bytes_per_block: bytes one block takes, over the layers that share it.
        blocks_per_request: blocks that a request of `max_model_len` tokens takes.
        block_size: tokens a block of the attention layers, after alignment with recurrent state.
    """

    num_blocks: int
    bytes_per_block: int
    blocks_per_request: int
    block_size: int
    max_model_len: int

    @property
    def max_concurrency(self) -> float:
        """vLLM's `Maximum concurrency for N tokens per request`, before it rounds to two digits."""
        return self.num_blocks / self.blocks_per_request

    @property
    def tokens(self) -> int:
        """vLLM's `KV cache size` in tokens."""
        return int(self.max_concurrency * self.max_model_len)


def max_concurrency(
    shape: ModelShape,
    kv_bytes_available: int,
    max_model_len: int,
    block_size: int | None = None,
    *,
    device: Device = "gpu",
    kv_dtype: str = "auto",
    max_num_batched_tokens: int = 8192,
    prefix_caching: bool = True,
) -> Capacity:
    """How many requests of `max_model_len` tokens fit, by vLLM 0.32's own rule.

    Layers of one kind share a block table; kinds are split into groups of equal depth, all groups
    draw from one pool, and a request takes blocks from each group. Fewer than one request is no
    error here; vLLM refuses to start then.

    Args:
        kv_bytes_available: what is left for the cache ("Available KV cache memory" in the log).
        block_size: `--block-size`; the device's default when None (16 on a GPU, 128 on a CPU).
        max_num_batched_tokens: matters to sliding layers only.
        prefix_caching: matters to hybrid models only.

    Raises:
        LabError: the model has no cache at all, or an argument is not positive.
    """
    if kv_bytes_available < 0 or max_model_len < 1 or (block_size is not None and block_size < 1):
        raise LabError(
            f"无法计算并发：KV 显存 {kv_bytes_available}、max_model_len {max_model_len}、"
            f"block_size {block_size}",
            remedy="后两者必须为正，KV 显存不能为负",
        )
    engine = engine_limits(
        shape,
        max_model_len,
        device=device,
        block_size=block_size,
        max_num_batched_tokens=max_num_batched_tokens,
        prefix_caching=prefix_caching,
    )
    groups = cache_groups(cache_layers(shape, engine, kv_dtype))
    bytes_per_block = max(sum(layer.page_bytes for layer in group) for group in groups)
    return Capacity(
        num_blocks=kv_bytes_available // bytes_per_block,
        bytes_per_block=bytes_per_block,
        blocks_per_request=sum(group[0].blocks_per_request(engine) for group in groups),
        block_size=max(layer.block_size for group in groups for layer in group),
        max_model_len=max_model_len,
    )


def cache_layers(
    shape: ModelShape, engine: EngineLimits, kv_dtype: str = "auto"
) -> list[CacheLayer]:
    """Each caching layer, with pages brought to one size where kinds are mixed.

    Raises:
        LabError: no layer caches anything.
    """
    element = kv_element_bytes(shape, kv_dtype)
    block_size = aligned_block_size(shape, engine, element)
    layers = []
    for mixer in shape.mixers:
        if isinstance(mixer, Recurrence):
            state = state_bytes(shape, mixer, engine.state_dtype)
            spare = mixer.spare_states
            layers.append(CacheLayer("state", state, block_size, spare_states=spare))
        else:
            layers.append(_attention_layer(mixer, block_size, element))
    if not layers:
        raise LabError("这个模型没有任何需要缓存的层", remedy="检查 config.json")
    if len({(layer.kind, layer.window) for layer in layers}) == 1:
        return layers
    return _unify_pages(layers)


def aligned_block_size(shape: ModelShape, engine: EngineLimits, element_bytes: int) -> int:
    """Tokens a block once an attention page is at least as large as a recurrent layer's state.

    vLLM calls this `_align_hybrid_block_size`; it raises the block size of hybrid models to
    hundreds of tokens.
    """
    states = [state_bytes(shape, mixer, engine.state_dtype) for mixer in shape.mixers]
    per_token = [m.kv_elements * element_bytes for m in shape.mixers if m.kv_elements]
    if not per_token or not max(states):
        return engine.block_size
    return engine.block_size * ceil(max(states) / (engine.block_size * per_token[0]))


def cache_groups(layers: list[CacheLayer]) -> list[list[CacheLayer]]:
    """Layers that share a block table: one kind each, and all of about the same depth."""
    by_kind: dict[tuple[str, int | None], list[CacheLayer]] = defaultdict(list)
    for layer in layers:
        by_kind[layer.kind, layer.window].append(layer)
    depths = [len(kind) for kind in by_kind.values()]
    # 1.5 is vLLM's heuristic: near-equal kinds are padded to the larger rather than split.
    depth = max(depths) if max(depths) < 1.5 * min(depths) else min(depths)
    groups = []
    for kind in by_kind.values():
        count = ceil(len(kind) / depth)
        groups += [kind[start::count] for start in range(count)]
    return groups


def _attention_layer(mixer: Mixer, block_size: int, element_bytes: int) -> CacheLayer:
    kind = "mla" if isinstance(mixer, LatentAttention) else "sliding" if mixer.window else "full"
    page = mixer.kv_elements * element_bytes * block_size
    return CacheLayer(kind, page, block_size, mixer.window)


def _unify_pages(layers: list[CacheLayer]) -> list[CacheLayer]:
    """Smaller pages take more tokens if that fits exactly, else they are padded."""
    largest = max(layer.page_bytes for layer in layers)
    unified = []
    for layer in layers:
        ratio, rest = divmod(largest, layer.page_bytes)
        if layer.kind == "state" or rest:
            ratio = 1
        unified.append(replace(layer, page_bytes=largest, block_size=layer.block_size * ratio))
    return unified
