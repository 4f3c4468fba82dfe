"""Families with routed experts in all or most layers."""

from inferlab.arithmetic.config_fields import ConfigFields
from inferlab.arithmetic.families import (
    every_nth_full,
    family,
    model_shape,
    softmax_attention,
    windows,
)
from inferlab.arithmetic.feed_forward import DenseMlp, FeedForward, MoeMlp
from inferlab.arithmetic.mixers import LatentAttention, SoftmaxAttention
from inferlab.arithmetic.shapes import Layer, ModelShape


@family("mixtral", "minimax_m2")
def mixtral(fields: ConfigFields) -> ModelShape:
    """Every layer routed, no shared expert; MiniMax-M2 adds full-width q/k norms."""
    moe = MoeMlp(
        fields.hidden,
        fields.count("intermediate_size"),
        fields.count("num_local_experts"),
        fields.count("num_experts_per_tok"),
    )
    width = (fields.query_heads + fields.kv_heads) * fields.head_dim
    attention = softmax_attention(
        fields,
        window=fields.get("sliding_window", default=None),
        qk_norm=width if fields.model_type == "minimax_m2" else 0,
    )
    return model_shape(fields, [Layer(attention, moe, 2 * fields.hidden)] * fields.depth)


@family("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text")
def qwen_moe(fields: ConfigFields) -> ModelShape:
    """Routed layers but for `mlp_only_layers`; Qwen2 has a gated shared expert, Qwen3 none."""
    if fields.flag("use_sliding_window"):
        raise fields.unsupported("use_sliding_window")
    if fields.model_type == "qwen2_moe":
        attention = softmax_attention(fields, qkv_bias=fields.flag("qkv_bias", default=True))
    else:
        bias = fields.flag("attention_bias")
        attention = softmax_attention(
            fields, qkv_bias=bias, output_bias=bias, qk_norm=2 * fields.head_dim
        )
    layers = [Layer(attention, mlp, 2 * fields.hidden) for mlp in qwen_feed_forwards(fields)]
    return model_shape(fields, layers)


def qwen_feed_forwards(fields: ConfigFields) -> list[FeedForward]:
    """The feed-forward part of each layer of a Qwen MoE."""
    shared_size = fields.count("shared_expert_intermediate_size", default=0)
    moe = MoeMlp(
        fields.hidden,
        fields.count("moe_intermediate_size"),
        fields.count("num_experts", "num_local_experts"),
        fields.count("num_experts_per_tok"),
        shared=DenseMlp(fields.hidden, shared_size) if shared_size else None,
        shared_gate=bool(shared_size),
    )
    step = fields.count("decoder_sparse_step", default=1)
    dense_layers = {i for i in range(fields.depth) if step == 0 or (i + 1) % step}
    dense_layers |= set(fields.get("mlp_only_layers", default=[]))
    if not dense_layers:
        return [moe] * fields.depth
    dense = DenseMlp(fields.hidden, fields.count("intermediate_size"))
    return [dense if i in dense_layers else moe for i in range(fields.depth)]


@family("gpt_oss")
def gpt_oss(fields: ConfigFields) -> ModelShape:
    """Biases everywhere, a sink a query head, every other layer slides over 128 tokens."""
    moe = MoeMlp(
        fields.hidden,
        fields.count("intermediate_size"),
        fields.count("num_local_experts"),
        fields.count("num_experts_per_tok", "experts_per_token"),
        bias=True,
        router_bias=True,
    )
    bias = fields.flag("attention_bias", default=True)
    layers = [
        Layer(
            softmax_attention(fields, window=window, qkv_bias=bias, output_bias=bias, sinks=True),
            moe,
            2 * fields.hidden,
        )
        for window in windows(fields, every_nth_full(fields.depth, 2))
    ]
    return model_shape(fields, layers)


@family("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe")
def deepseek(fields: ConfigFields) -> ModelShape:
    """Dense first layers, then routed ones with shared experts; MLA (GLM-4.5: GQA instead)."""
    if fields.count("moe_layer_freq", default=1) != 1:
        raise fields.unsupported("moe_layer_freq ≠ 1")
    size = fields.count("moe_intermediate_size")
    shared = fields.count("n_shared_experts", default=0)
    moe = MoeMlp(
        fields.hidden,
        size,
        fields.count("n_routed_experts"),
        fields.count("num_experts_per_tok"),
        shared=DenseMlp(fields.hidden, shared * size) if shared else None,
    )
    dense = DenseMlp(fields.hidden, fields.count("intermediate_size"))
    attention = glm_attention(fields) if fields.model_type == "glm4_moe" else mla(fields)
    first = fields.count("first_k_dense_replace", default=0)
    layers = [
        Layer(attention, dense if i < first else moe, 2 * fields.hidden)
        for i in range(fields.depth)
    ]
    return model_shape(fields, layers)


def mla(fields: ConfigFields) -> LatentAttention:
    """DeepSeek's multi-head latent attention; V2-Lite projects its queries directly."""
    return LatentAttention(
        hidden_size=fields.hidden,
        heads=fields.query_heads,
        query_rank=fields.get("q_lora_rank", default=None),
        kv_rank=fields.count("kv_lora_rank"),
        nope_dim=fields.count("qk_nope_head_dim"),
        rope_dim=fields.count("qk_rope_head_dim"),
        value_dim=fields.count("v_head_dim"),
        bias=fields.flag("attention_bias"),
    )


def glm_attention(fields: ConfigFields) -> SoftmaxAttention:
    """GLM-4.5: biased q, k, v; norms on each head in the large model only."""
    norm = 2 * fields.head_dim if fields.flag("use_qk_norm") else 0
    return softmax_attention(fields, qkv_bias=fields.flag("attention_bias"), qk_norm=norm)
