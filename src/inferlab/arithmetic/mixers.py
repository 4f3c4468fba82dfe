"""What mixes tokens in a layer: softmax attention, latent attention (MLA), or a recurrence.

Each knows its matrices, its small vectors, what it caches for a token or a sequence, and the FLOPs
that are not matrix products with weights.
"""

from dataclasses import dataclass
from typing import Protocol

from inferlab.arithmetic.matrices import Matrix


class Mixer(Protocol):
    """The sequence-mixing half of a layer."""

    @property
    def kind(self) -> str: ...

    @property
    def matrices(self) -> tuple[Matrix, ...]: ...

    @property
    def vectors(self) -> int:
        """Parameters outside the matrices: q/k norms, sinks, convolutions, decay rates."""
        ...

    @property
    def window(self) -> int | None:
        """How many of the last tokens it sees; None when all."""
        ...

    @property
    def kv_elements(self) -> int:
        """Cached elements a token; 0 for a recurrence."""
        ...

    def core_flops(self, tokens: int, pairs: float, *, decode: bool) -> float:
        """FLOPs besides the weights; `pairs` counts (query, key) pairs of `tokens` new tokens."""
        ...

    def core_activations(self, tokens: int) -> int:
        """Elements read and written besides weights and cache (the query in, the output out)."""
        ...


@dataclass(frozen=True)
class SoftmaxAttention:
    """MHA, GQA or MQA, over all tokens or a sliding window.

    Attributes:
        qk_norm: elements of the norms on queries and keys, together.
        sinks: one learned logit a query head (gpt-oss).
        output_gate: the query projection also makes a gate for the output (Qwen3-Next).
    """

    hidden_size: int
    query_heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: int = 0
    sinks: bool = False
    output_gate: bool = False

    @property
    def kind(self) -> str:
        groups = {1: "MQA", self.query_heads: "MHA"}.get(self.kv_heads, "GQA")
        return f"{groups} 滑窗 {self.window}" if self.window else groups

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        queries = self.query_heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        merged = queries * (2 if self.output_gate else 1) + 2 * keys
        return (
            Matrix("qkv_proj", self.hidden_size, merged, self.qkv_bias),
            Matrix("o_proj", queries, self.hidden_size, self.output_bias),
        )

    @property
    def vectors(self) -> int:
        return self.qk_norm + (self.query_heads if self.sinks else 0)

    @property
    def kv_elements(self) -> int:
        return 2 * self.kv_heads * self.head_dim

    def core_flops(self, tokens: int, pairs: float, *, decode: bool) -> float:
        """QK^T and PV: 2 FLOPs an element each (Kaplan et al. 2020; softmax itself left out)."""
        return 4 * self.query_heads * self.head_dim * pairs

    def core_activations(self, tokens: int) -> int:
        return 2 * tokens * self.query_heads * self.head_dim


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one small vector cached a token.

    Attributes:
        query_rank: rank of the query's own compression; None when queries are projected directly.
        kv_rank: d_c, elements of the cached latent.
        rope_dim: elements of the shared rotary key, cached beside the latent.
        nope_dim, value_dim: elements a head of the keys without position and of the values.
    """

    hidden_size: int
    heads: int
    query_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    bias: bool = False
    window: int | None = None

    kind = "MLA"

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        hidden, latent = self.hidden_size, self.kv_rank + self.rope_dim
        queries = self.heads * (self.nope_dim + self.rope_dim)
        if self.query_rank is None:
            inputs = (
                Matrix("q_proj", hidden, queries),
                Matrix("kv_a_proj", hidden, latent, self.bias),
            )
        else:
            inputs = (
                Matrix("qkv_a_proj", hidden, self.query_rank + latent, self.bias),
                Matrix("q_b_proj", self.query_rank, queries),
            )
        return (
            *inputs,
            Matrix("kv_b_proj", self.kv_rank, self.heads * (self.nope_dim + self.value_dim)),
            Matrix("o_proj", self.heads * self.value_dim, hidden, self.bias),
        )

    @property
    def vectors(self) -> int:
        return (self.query_rank or 0) + self.kv_rank

    @property
    def kv_elements(self) -> int:
        return self.kv_rank + self.rope_dim

    def core_flops(self, tokens: int, pairs: float, *, decode: bool) -> float:
        """Decode attends in the latent space (weights absorbed), prefill in the heads'."""
        if decode:
            return 2 * self.heads * (2 * self.kv_rank + self.rope_dim) * pairs
        return 2 * self.heads * (self.nope_dim + self.rope_dim + self.value_dim) * pairs

    def core_activations(self, tokens: int) -> int:
        return tokens * self.heads * (self.nope_dim + self.rope_dim + self.value_dim)


@dataclass(frozen=True)
class Recurrence:
    """A layer with a state of constant size instead of a cache that grows.

    Attributes:
        state_elements: elements of the recurrent state of one sequence.
        conv_elements: elements that the short convolution keeps of one sequence.
        flops_per_state: FLOPs a token for each state element (decay, update, read-out).
        state_dtype: dtype of the state; "auto" is the model's own.
        spare_states: copies of the state that vLLM keeps beside the running one when prefix caching
            is on: one at the last block's edge, and with Mamba-2 one of the prefill.
    """

    kind: str
    matrices: tuple[Matrix, ...]
    vectors: int
    state_elements: int
    conv_elements: int
    flops_per_state: int
    state_dtype: str = "auto"
    spare_states: int = 1

    window = None
    kv_elements = 0

    def core_flops(self, tokens: int, pairs: float, *, decode: bool) -> float:
        return tokens * self.flops_per_state * self.state_elements

    def core_activations(self, tokens: int) -> int:
        """Left to the matrices on either side: the recurrence reads what they write."""
        return 0


def gated_delta_net(
    hidden: int,
    key_heads: int,
    value_heads: int,
    key_dim: int,
    value_dim: int,
    kernel: int,
    dtype: str,
) -> Recurrence:
    """Gated DeltaNet (arXiv 2412.06464) as in Qwen3-Next and Qwen3.5.

    A state element takes a decay, a multiply-add for k·S, one for the rank-one update, one for q·S.
    """
    keys, values = key_heads * key_dim, value_heads * value_dim
    conv = 2 * keys + values
    return Recurrence(
        kind="Gated DeltaNet",
        matrices=(
            Matrix("in_proj_qkvz", hidden, 2 * keys + 2 * values),
            Matrix("in_proj_ba", hidden, 2 * value_heads),
            Matrix("out_proj", values, hidden),
        ),
        vectors=conv * kernel + 2 * value_heads + value_dim,
        state_elements=value_heads * key_dim * value_dim,
        conv_elements=conv * (kernel - 1),
        flops_per_state=7,
        state_dtype=dtype,
    )


def mamba2(
    hidden: int,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    kernel: int,
    *,
    conv_bias: bool = True,
    projection_bias: bool = False,
    dtype: str = "auto",
) -> Recurrence:
    """Mamba-2 (arXiv 2405.21060): decay, a multiply-add for the input, one for the output."""
    inner = heads * head_dim
    conv = inner + 2 * groups * state
    return Recurrence(
        kind="Mamba-2",
        matrices=(
            Matrix("in_proj", hidden, inner + conv + heads, projection_bias),
            Matrix("out_proj", inner, hidden, projection_bias),
        ),
        vectors=conv * (kernel + int(conv_bias)) + 3 * heads + inner,
        state_elements=heads * head_dim * state,
        conv_elements=conv * (kernel - 1),
        flops_per_state=5,
        state_dtype=dtype,
        spare_states=2,
    )


def mamba1(
    hidden: int,
    inner: int,
    state: int,
    rank: int,
    kernel: int,
    *,
    conv_bias: bool = True,
    projection_bias: bool = False,
    inner_norms: bool = False,
) -> Recurrence:
    """Mamba (arXiv 2312.00752); Jamba adds norms on the step, B and C (`inner_norms`)."""
    norms = rank + 2 * state if inner_norms else 0
    return Recurrence(
        kind="Mamba",
        matrices=(
            Matrix("in_proj", hidden, 2 * inner, projection_bias),
            Matrix("x_proj", inner, rank + 2 * state),
            Matrix("dt_proj", rank, inner, bias=True),
            Matrix("out_proj", inner, hidden, projection_bias),
        ),
        vectors=inner * (kernel + int(conv_bias)) + inner * state + inner + norms,
        state_elements=inner * state,
        conv_elements=inner * (kernel - 1),
        flops_per_state=5,
    )
