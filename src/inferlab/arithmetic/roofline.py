"""FLOPs and bytes of a prefill or decode step, and the roofline's two times.

Each step is split into the parts that behave differently: the attention layers' projections, the
attention itself (scores, values, cache), the feed-forward part, and the output head. Bytes are what
an ideal engine moves through device memory: weights once a step, the cache once, each matrix
product's input and output once; element-wise work counts as fused into its neighbours. Activations
of a small step may stay in the L2 cache, weights and a full KV cache cannot.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from inferlab.arithmetic.kv_cache import kv_element_bytes, state_bytes
from inferlab.arithmetic.matrices import Matrix, WeightFormat, weight_format
from inferlab.arithmetic.mixers import LatentAttention, Mixer
from inferlab.arithmetic.shapes import Layer, ModelShape
from inferlab.arithmetic.work import Ceilings, LayerWork, RooflinePoint, StepWork, Work
from inferlab.errors import LabError

__all__ = [
    "Ceilings",
    "LayerWork",
    "RooflinePoint",
    "Step",
    "StepWork",
    "Work",
    "attention_work",
    "decode",
    "layer_work",
    "linear_ridge_tokens",
    "prefill",
    "ridge_batch",
    "step_work",
]


@dataclass(frozen=True)
class Step:
    """What is computed in one step, and the dtypes it is computed in.

    Attributes:
        batch: sequences.
        new_tokens: tokens computed for each sequence (1 in decode).
        cached: tokens of each sequence that lie in the cache already.
        decode: MLA then attends in the latent space.
    """

    batch: int
    new_tokens: int
    cached: int
    decode: bool
    weight_dtype: str = "auto"
    kv_dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1 or self.new_tokens < 1 or self.cached < 0:
            raise LabError(
                f"batch={self.batch}、新 token {self.new_tokens}、已缓存 {self.cached} 不成立",
                remedy="batch 与新 token 至少为 1，已缓存不小于 0 且小于 prompt 长度",
            )

    @property
    def tokens(self) -> int:
        return self.batch * self.new_tokens

    def pairs(self, window: int | None) -> float:
        """(query, key) pairs under the causal mask and window, over the batch."""
        first, last = self.cached + 1, self.cached + self.new_tokens
        if window is None or last <= window:
            return self.batch * (first + last) * self.new_tokens / 2
        growing = max(window - self.cached, 0)
        return self.batch * ((first + window) * growing / 2 + (self.new_tokens - growing) * window)


def prefill(
    shape: ModelShape,
    batch: int,
    prompt_len: int,
    cached: int = 0,
    *,
    weight_dtype: str = "auto",
    kv_dtype: str = "auto",
) -> StepWork:
    """Work of prefilling `batch` prompts, of which `cached` tokens each are in the cache already.

    Logits are computed for the last token of each prompt only.

    Raises:
        LabError: nothing is left to compute, or a dtype is unknown.
    """
    step = Step(batch, prompt_len - cached, cached, False, weight_dtype, kv_dtype)
    return step_work(shape, step)


def decode(
    shape: ModelShape,
    batch: int,
    context: int,
    *,
    weight_dtype: str = "auto",
    kv_dtype: str = "auto",
) -> StepWork:
    """Work of one decode step: one new token for each of `batch` sequences.

    Args:
        context: tokens in the cache before the step; the new token attends to them and to itself.
    """
    return step_work(shape, Step(batch, 1, context, True, weight_dtype, kv_dtype))


def step_work(shape: ModelShape, step: Step) -> StepWork:
    """Work of one step over the whole model. Of the input embedding only the rows used are read."""
    layers = sum((layer_work(shape, layer, step) for layer in shape.layers), LayerWork())
    # Heads and embeddings stay in the model's dtype whatever the layers' format.
    head = _matrix_work([shape.head], step.batch, weight_format(shape.dtype), shape.dtype_bytes)
    embedding = Work(activation_bytes=2 * step.tokens * shape.hidden_size * shape.dtype_bytes)
    return StepWork(layers, head + embedding)


def layer_work(shape: ModelShape, layer: Layer, step: Step) -> LayerWork:
    """Work of one layer, its attention half and its MLP half apart."""
    name = shape.weight_format if step.weight_dtype == "auto" else step.weight_dtype
    form, element = weight_format(name), shape.dtype_bytes
    work = LayerWork()
    if layer.mlp:
        work += LayerWork(mlp=_matrix_work(layer.mlp.matrices, step.tokens, form, element))
    if layer.mixer:
        projections = _matrix_work(layer.mixer.matrices, step.tokens, form, element)
        work += LayerWork(projections, attention_work(shape, layer.mixer, step))
    return work


def attention_work(shape: ModelShape, mixer: Mixer, step: Step) -> Work:
    """Scores, values and cache of one layer; a recurrence reads and writes its state instead.

    The cache is read once (what was there and what is new, as far as the window reaches) and the
    new tokens' part is written once.
    """
    flops = mixer.core_flops(step.tokens, step.pairs(mixer.window), decode=step.decode)
    if isinstance(mixer, LatentAttention) and not step.decode:
        flops += 2 * step.batch * step.cached * _expansion(mixer)
    element = kv_element_bytes(shape, step.kv_dtype)
    reach = step.new_tokens - 1 + (mixer.window or step.cached + 1)
    read = min(step.cached + step.new_tokens, reach)
    cache = step.batch * (read + step.new_tokens) * mixer.kv_elements * element
    state = 2 * step.batch * state_bytes(shape, mixer)
    activations = mixer.core_activations(step.tokens) * shape.dtype_bytes
    return Work(flops, mixer.vectors * shape.dtype_bytes, cache + state, activations)


def ridge_batch(ceilings: Ceilings, weight_bytes_per_parameter: float = 2.0) -> float:
    """Tokens a step at which a dense matrix product turns from memory- to compute-bound.

    2·B FLOPs a weight against w bytes a weight: B* = ridge · w / 2. Activations are left out;
    multiply by E/k for routed experts.
    """
    return ceilings.ridge * weight_bytes_per_parameter / 2


def linear_ridge_tokens(
    shape: ModelShape, ceilings: Ceilings, *, weight_dtype: str = "auto", limit: int = 1 << 20
) -> int | None:
    """The smallest number of tokens a step at which the model's linear layers are compute-bound.

    Activations and routed experts included, unlike `ridge_batch`; None when not even `limit`
    tokens suffice.
    """

    def compute_bound(tokens: int) -> bool:
        work = decode(shape, tokens, 0, weight_dtype=weight_dtype).linear
        return work.against(ceilings).bound == "compute"

    low, high = 0, 1
    while not compute_bound(high):
        low, high = high, 2 * high
        if high > limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if compute_bound(middle) else (middle, high)
    return high


def _expansion(mixer: LatentAttention) -> int:
    """Weights that turn a cached latent into keys and values again (prefill after a hit)."""
    return next(matrix.weights for matrix in mixer.matrices if matrix.name == "kv_b_proj")


def _matrix_work(
    matrices: Iterable[Matrix], tokens: int, form: WeightFormat, dtype_bytes: int
) -> Work:
    """Products of `tokens` tokens with these matrices; experts that no token chose are not read."""
    work = Work()
    for matrix in matrices:
        work += Work(
            flops=tokens * matrix.flops_per_token,
            weight_bytes=matrix.expected_copies(tokens) * form.bytes_of(matrix, dtype_bytes),
            activation_bytes=tokens * matrix.activations_per_token * dtype_bytes,
        )
    return work
