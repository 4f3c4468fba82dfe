"""Families whose every layer is attention and a dense MLP."""

from typing import Any

from inferlab.arithmetic.config_fields import ConfigFields
from inferlab.arithmetic.families import (
    every_nth_full,
    family,
    model_shape,
    softmax_attention,
    windows,
)
from inferlab.arithmetic.feed_forward import DenseMlp
from inferlab.arithmetic.mixers import SoftmaxAttention
from inferlab.arithmetic.shapes import Layer, ModelShape

# The others' model classes ignore the field.
_MLP_BIAS = ("granite", "llama", "seed_oss", "smollm3")

# When they slide at all; their model classes have no biases, whatever the config says.
_SLIDES_EVERYWHERE = ("ministral3", "mistral", "phi3")


@family("llama", "granite", "mistral", "ministral3", "phi3", "smollm3", "qwen3_vl_text", "qwen3")
@family("qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "olmo2", "olmo3", "seed_oss")
def llama_like(fields: ConfigFields) -> ModelShape:
    """Pre-norm, gated MLP, rotary positions; the members differ in biases, norms and windows."""
    bias = fields.model_type in _MLP_BIAS and fields.flag("mlp_bias")
    mlp = DenseMlp(fields.hidden, fields.count("intermediate_size"), bias=bias)
    layers = [
        Layer(
            softmax_attention(fields, window=window, **llama_attention(fields)),
            mlp,
            2 * fields.hidden,
        )
        for window in llama_windows(fields)
    ]
    return model_shape(fields, layers, tied=fields.model_type == "smollm3")


def llama_attention(fields: ConfigFields) -> dict[str, Any]:
    """Biases and q/k norms: Qwen2 biases q, k, v; Qwen3 norms each head; OLMo 2 the full width."""
    kind, bias = fields.model_type, fields.flag("attention_bias")
    if kind in _SLIDES_EVERYWHERE:
        return {}
    if kind.startswith("qwen2"):
        return {"qkv_bias": True}
    if kind == "seed_oss":
        out = fields.flag("attention_out_bias")
        return {"qkv_bias": fields.flag("attention_bias", default=True), "output_bias": out}
    if kind.startswith("olmo"):
        norm = (fields.query_heads + fields.kv_heads) * fields.head_dim
        return {"qkv_bias": bias, "output_bias": bias, "qk_norm": norm}
    norm = 2 * fields.head_dim if kind.startswith("qwen3") else 0
    return {"qkv_bias": bias, "output_bias": bias, "qk_norm": norm}


def llama_windows(fields: ConfigFields) -> list[int | None]:
    """Mistral and Phi-3 slide everywhere; Qwen only with `use_sliding_window`; others by list."""
    full = ["full_attention"] * fields.depth
    if fields.model_type in _SLIDES_EVERYWHERE:
        window = fields.get("sliding_window", default=None)
        return windows(fields, ["sliding_attention"] * fields.depth if window else full)
    if fields.model_type.startswith("qwen"):
        if not fields.flag("use_sliding_window"):
            return [None] * fields.depth
        first = fields.count("max_window_layers", default=28)
        return windows(fields, full[:first] + ["sliding_attention"] * (fields.depth - first))
    if fields.model_type == "olmo3":
        return windows(fields, every_nth_full(fields.depth, 4), default=4096)
    return windows(fields, full)


@family("gemma", "gemma2", "gemma3_text")
def gemma(fields: ConfigFields) -> ModelShape:
    """Tied embeddings; from Gemma 2 on norms before and after each part and alternating windows."""
    period = {"gemma2": 2, "gemma3_text": fields.count("sliding_window_pattern", default=6)}
    defaults = {"gemma2": (8, 4, 256, 4096), "gemma3_text": (8, 4, 256, 4096)}
    bias = fields.flag("attention_bias")
    heads, kv_heads, head_dim, window = defaults.get(fields.model_type, (16, 16, 256, 0))
    head_dim = fields.count("head_dim", default=head_dim)
    pattern = ["full_attention"] * fields.depth
    if fields.model_type in period:
        pattern = every_nth_full(fields.depth, period[fields.model_type])
    mlp = DenseMlp(fields.hidden, fields.count("intermediate_size"))
    layers = [
        Layer(
            SoftmaxAttention(
                fields.hidden,
                fields.count("num_attention_heads", default=heads),
                fields.count("num_key_value_heads", default=kv_heads),
                head_dim,
                window=layer_window,
                qkv_bias=bias,
                output_bias=bias,
                qk_norm=2 * head_dim if fields.model_type == "gemma3_text" else 0,
            ),
            mlp,
            norms=(2 if fields.model_type == "gemma" else 4) * fields.hidden,
        )
        for layer_window in windows(fields, pattern, default=window)
    ]
    return model_shape(with_default(fields, "vocab_size", 262208), layers, tied=True)


def with_default(fields: ConfigFields, name: str, value: Any) -> ConfigFields:
    """The fields with one more default (Gemma 3's own configs leave out the vocabulary)."""
    return ConfigFields({name: value, **fields.values})


@family("gpt2")
def gpt2(fields: ConfigFields) -> ModelShape:
    """MHA and plain MLP with biases, LayerNorm (weight and bias), a learned position table."""
    hidden = fields.hidden
    mlp = DenseMlp(hidden, fields.count("n_inner", default=4 * hidden), gated=False, bias=True)
    attention = softmax_attention(fields, qkv_bias=True, output_bias=True)
    return model_shape(
        fields,
        [Layer(attention, mlp, norms=4 * hidden)] * fields.depth,
        tied=True,
        final_norm=2 * hidden,
        position_rows=fields.count("n_positions"),
    )


@family("falcon")
def falcon(fields: ConfigFields) -> ModelShape:
    """Attention and MLP in parallel; 7B: MQA and one LayerNorm a layer, 40B/180B: GQA and two."""
    new, parallel = (
        fields.flag("new_decoder_architecture"),
        fields.flag("parallel_attn", default=True),
    )
    heads = fields.query_heads
    kv_heads = fields.count("num_kv_heads", "n_head_kv", default=heads)
    if not new and fields.flag("multi_query", default=True):
        kv_heads = 1
    norms = fields.count("num_ln_in_parallel_attn", default=2 if new else 1) if parallel else 2
    hidden, bias = fields.hidden, fields.flag("bias")
    attention = SoftmaxAttention(
        hidden, heads, kv_heads, hidden // heads, qkv_bias=bias, output_bias=bias
    )
    inner = fields.count("ffn_hidden_size", default=4 * hidden)
    layer = Layer(attention, DenseMlp(hidden, inner, gated=False, bias=bias), 2 * norms * hidden)
    return model_shape(fields, [layer] * fields.depth, tied=True, final_norm=2 * hidden)


@family("phi")
def phi(fields: ConfigFields) -> ModelShape:
    """Phi-1 to 2: parallel parts under one LayerNorm, biases everywhere, the head's too."""
    if fields.flag("qk_layernorm"):
        raise fields.unsupported("qk_layernorm")
    hidden = fields.hidden
    mlp = DenseMlp(hidden, fields.count("intermediate_size"), gated=False, bias=True)
    attention = softmax_attention(fields, qkv_bias=True, output_bias=True)
    layer = Layer(attention, mlp, norms=2 * hidden)
    return model_shape(fields, [layer] * fields.depth, final_norm=2 * hidden, head_bias=True)
