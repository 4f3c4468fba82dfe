"""Time one decoder layer in torch: prefill over prompt length, decode over batch and context.

No engine, no scheduler: what is left is the layer's own distance to the roofline, its projections,
attention core and MLP apart. Weights and inputs are random; speed does not depend on their values.
Run by `./lab record`, in an interpreter that has torch:

    python -m inferlab.measure.layer --config path/to/config.json --out layer.json
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from inferlab.arithmetic.matrices import dtype_bytes
from inferlab.hardware.experiment import run
from inferlab.hardware.timing import (
    Series,
    as_graph,
    free_bytes,
    load_torch,
    seconds_per_run,
)

PREFILL_TOKENS = {
    "cuda": (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    "cpu": (64, 256, 1024),
}
# As the labs' engines: few CPUs have bf16 instructions.
DTYPES = {"cuda": "bf16", "cpu": "fp32"}
DECODE_BATCHES = {"cuda": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), "cpu": (1, 4, 16, 64)}
DECODE_CONTEXTS = {"cuda": (1024, 8192), "cpu": (512,)}
LONG_CONTEXT_BATCHES = 64  # larger batches of the long context would only repeat the picture
OUT_OF_CACHE_BYTES = (
    512 << 20
)  # KV caches are rotated over this much, so that no L2 serves them twice


@dataclass(frozen=True)
class LayerSize:
    """Widths of a gated, grouped-query layer without biases (Llama, Qwen, Mistral)."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LayerSize":
        heads = config["num_attention_heads"]
        return cls(
            config["hidden_size"],
            config["intermediate_size"],
            heads,
            config.get("num_key_value_heads", heads),
            config.get("head_dim") or config["hidden_size"] // heads,
        )

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    def kv_bytes(self, batch: int, context: int, device: str) -> int:
        return 2 * batch * context * self.kv_width * dtype_bytes(DTYPES[device])


class RandomLayer:
    """One layer's weights on a device, and its parts as plain functions.

    Element-wise code is compiled on a GPU.
    """

    def __init__(self, size: LayerSize, device: str) -> None:
        torch = load_torch()

        self.size, self.device, self.torch = size, device, torch
        self.dtype = torch.bfloat16 if DTYPES[device] == "bf16" else torch.float32
        self.qkv = self._matrix(size.hidden, size.q_width + 2 * size.kv_width)
        self.out = self._matrix(size.q_width, size.hidden)
        self.gate_up = self._matrix(size.hidden, 2 * size.intermediate)
        self.down = self._matrix(size.intermediate, size.hidden)
        self.norm = torch.ones(size.hidden, device=device, dtype=self.dtype)
        # torch.compile stands in for an engine's fused kernels; a CPU may lack a C++ compiler.
        fuse: Callable[..., Any] = torch.compile if device == "cuda" else lambda f: f
        self._activate, self._add_norm = fuse(self._silu_gate), fuse(self._residual_norm)

    def random(self, *shape: int) -> Any:
        return self.torch.randn(*shape, device=self.device, dtype=self.dtype)

    def _matrix(self, rows: int, columns: int) -> Any:
        return self.random(rows, columns) / math.sqrt(rows)

    def _silu_gate(self, both: Any) -> Any:
        gate, up = both.chunk(2, dim=-1)
        return self.torch.nn.functional.silu(gate) * up

    def _residual_norm(self, x: Any, residual: Any) -> tuple[Any, Any]:
        total = x + residual
        return self.torch.nn.functional.rms_norm(total, self.norm.shape, self.norm), total

    def mlp(self, x: Any) -> Any:
        """X [tokens, hidden] → [tokens, hidden]."""
        return self._activate(x @ self.gate_up) @ self.down

    def projections(self, x: Any) -> Any:
        """The two products around the attention core; the values between them do not matter for
        time."""
        return (x @ self.qkv)[:, : self.size.q_width] @ self.out

    def whole(self, x: Any, core: Callable[[], Any]) -> Any:
        """The layer without rotary embedding; `core` is the attention on tensors of its own."""
        normed, residual = self._add_norm(x, x)
        attended = self.projections(normed)
        core()
        normed, residual = self._add_norm(attended, residual)
        return residual + self.mlp(normed)


def prefill_core(layer: RandomLayer, tokens: int) -> dict[str, Callable[[], Any]]:
    """Causal attention of one prompt of `tokens`, by kernel; `enable_gqa` keeps K and V at their
    own heads."""
    size, torch = layer.size, layer.torch
    q = layer.random(1, size.heads, tokens, size.head_dim)
    k, v = (layer.random(1, size.kv_heads, tokens, size.head_dim) for _ in range(2))
    return {
        name: _with_backend(torch, backend, q, k, v, causal=True)
        for name, backend in _backends(torch, layer.device).items()
    }


def decode_core(layer: RandomLayer, batch: int, context: int) -> dict[str, Callable[[], Any]]:
    """One new token a sequence against `context` cached ones, by kernel; caches rotate so none
    stays in L2.

    Queries that share a KV head are folded into the length, so the cache is read once, not once a
    query head.
    """
    size, torch = layer.size, layer.torch
    group = size.heads // size.kv_heads
    copies = max(
        1, min(64, math.ceil(OUT_OF_CACHE_BYTES / size.kv_bytes(batch, context, layer.device)))
    )
    copies = copies if layer.device == "cuda" else 1
    q = layer.random(batch, size.kv_heads, group, size.head_dim)
    caches = [
        tuple(layer.random(batch, size.kv_heads, context, size.head_dim) for _ in range(2))
        for _ in range(copies)
    ]

    def each(attend: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: [attend(q, k, v) for k, v in caches]

    found = {
        name: each(_attend(torch, backend, causal=False))
        for name, backend in _backends(torch, layer.device).items()
    }
    found["bmm"] = each(_explicit(torch, size.head_dim))
    for work in found.values():
        work.copies = copies  # type: ignore[attr-defined]
    return found


def _backends(torch: Any, device: str) -> dict[str, Any]:
    kinds = torch.nn.attention.SDPBackend
    if device == "cpu":
        return {"flash": kinds.FLASH_ATTENTION}
    return {"flash": kinds.FLASH_ATTENTION, "cudnn": kinds.CUDNN_ATTENTION}


def _attend(torch: Any, backend: Any, *, causal: bool) -> Callable[..., Any]:
    def attend(q: Any, k: Any, v: Any) -> Any:
        with torch.nn.attention.sdpa_kernel(backend):
            shared = q.shape[1] != k.shape[1]
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=shared
            )

    return attend


def _with_backend(torch: Any, backend: Any, q: Any, k: Any, v: Any, *, causal: bool):
    attend = _attend(torch, backend, causal=causal)
    return lambda: attend(q, k, v)


def _explicit(torch: Any, head_dim: int) -> Callable[..., Any]:
    def attend(q: Any, k: Any, v: Any) -> Any:
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(head_dim)
        return torch.matmul(torch.softmax(scores, dim=-1), v)

    return attend


def fastest(candidates: dict[str, Callable[[], Any]], device: str) -> tuple[str, Callable[[], Any]]:
    """The quickest kernel of those that run here, as (name, work); the others' names do not matter
    after that."""
    timed = {}
    for name, work in candidates.items():
        try:
            seconds = seconds_per_run(work, device, repeats=1, budget_s=0.01)
        except RuntimeError:  # this backend lacks the shape or dtype on this device
            continue
        timed[name] = min(seconds)
    best = min(timed, key=timed.__getitem__)
    return best, candidates[best]


def prefill_series(layer: RandomLayer, tokens: int, repeats: int) -> Iterator[Series]:
    x = layer.random(tokens, layer.size.hidden)
    kernel, core = fastest(prefill_core(layer, tokens), layer.device)
    parts = {
        "projections": lambda: layer.projections(x),
        "attention": core,
        "mlp": lambda: layer.mlp(x),
        "layer": lambda: layer.whole(x, core),
    }
    labels = {"phase": "prefill", "batch": 1, "tokens": tokens, "attention_kernel": kernel}
    yield from _series(parts, labels, layer.device, repeats)


def decode_series(layer: RandomLayer, batch: int, context: int, repeats: int) -> Iterator[Series]:
    x = layer.random(batch, layer.size.hidden)
    kernel, core = fastest(decode_core(layer, batch, context), layer.device)
    copies = core.copies  # type: ignore[attr-defined]
    labels = {"phase": "decode", "batch": batch, "context": context, "attention_kernel": kernel}
    parts = {"projections": lambda: layer.projections(x), "mlp": lambda: layer.mlp(x)}
    yield from _series(parts, labels, layer.device, repeats)
    for series in _series({"attention": core}, labels, layer.device, repeats):
        yield Series(series.name, "s", [v / copies for v in series.values], series.labels)

    # A whole layer meets one cache; its own weights have pushed that out of L2 since the last run.
    def whole() -> Any:
        return [layer.whole(x, lambda: None) for _ in range(copies)], core()

    for series in _series({"layer": whole}, labels, layer.device, repeats):
        yield Series(series.name, "s", [v / copies for v in series.values], series.labels)


def _series(
    parts: dict[str, Callable[[], Any]], labels: dict[str, Any], device: str, repeats: int
) -> Iterator[Series]:
    for name, work in parts.items():
        values = seconds_per_run(as_graph(work, device), device, repeats=repeats)
        yield Series("layer_time", "s", values, {**labels, "part": name})


def measure(size: LayerSize, device: str, repeats: int = 5) -> Iterator[Series]:
    """Seconds of every part over the grid of this device, decode first."""
    torch = load_torch()

    with torch.inference_mode():
        layer = RandomLayer(size, device)
        for context in DECODE_CONTEXTS[device]:
            for batch in DECODE_BATCHES[device]:
                if context > DECODE_CONTEXTS[device][0] and batch > LONG_CONTEXT_BATCHES:
                    continue
                if _fits(size, batch, context, device):
                    yield from decode_series(layer, batch, context, repeats)
        for tokens in PREFILL_TOKENS[device]:
            yield from prefill_series(layer, tokens, repeats)


def _fits(size: LayerSize, batch: int, context: int, device: str) -> bool:
    """Whether the KV caches of one decode condition fit beside what else is in memory."""
    return 2 * max(OUT_OF_CACHE_BYTES, size.kv_bytes(batch, context, device)) < free_bytes(device)


if __name__ == "__main__":
    run(
        __doc__,
        lambda device, repeats, config: measure(LayerSize.from_config(config), device, repeats),
    )
