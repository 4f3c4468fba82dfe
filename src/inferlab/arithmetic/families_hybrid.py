"""Families that mix attention layers with recurrent ones."""

from math import ceil

from inferlab.arithmetic.config_fields import ConfigFields
from inferlab.arithmetic.families import family, model_shape, softmax_attention
from inferlab.arithmetic.families_moe import qwen_feed_forwards
from inferlab.arithmetic.feed_forward import DenseMlp, FeedForward, MoeMlp
from inferlab.arithmetic.mixers import Recurrence, gated_delta_net, mamba1, mamba2
from inferlab.arithmetic.shapes import Layer, ModelShape

# Older configs name the same two kinds differently.
_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}


@family("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
def qwen_delta(fields: ConfigFields) -> ModelShape:
    """Three Gated DeltaNet layers, then one gated attention; dense or routed feed-forward."""
    period = fields.count("full_attention_interval", default=4)
    pattern = [
        "linear_attention" if (i + 1) % period else "full_attention" for i in range(fields.depth)
    ]
    bias = fields.flag("attention_bias")
    attention = softmax_attention(
        fields, qkv_bias=bias, output_bias=bias, qk_norm=2 * fields.head_dim, output_gate=True
    )
    mixers = {"linear_attention": delta_net(fields), "full_attention": attention}
    mlps: list[FeedForward] = (
        [DenseMlp(fields.hidden, fields.count("intermediate_size"))] * fields.depth
        if fields.model_type == "qwen3_5_text"
        else qwen_feed_forwards(fields)
    )
    kinds = known_kinds(fields, fields.layer_types(pattern))
    layers = [
        Layer(mixers[kind], mlp, 2 * fields.hidden) for kind, mlp in zip(kinds, mlps, strict=True)
    ]
    return model_shape(fields, layers)


def delta_net(fields: ConfigFields) -> Recurrence:
    """Qwen's linear attention; `mamba_ssm_dtype` is how Qwen3.5 asks for an fp32 state."""
    return gated_delta_net(
        fields.hidden,
        fields.count("linear_num_key_heads"),
        fields.count("linear_num_value_heads"),
        fields.count("linear_key_head_dim"),
        fields.count("linear_value_head_dim"),
        fields.count("linear_conv_kernel_dim"),
        str(fields.get("mamba_ssm_dtype", default="auto")),
    )


def known_kinds(fields: ConfigFields, kinds: list[str]) -> list[str]:
    """Layer kinds under their present names; anything but attention and recurrence is refused."""
    named = [_KINDS.get(kind, kind) for kind in kinds]
    if unknown := set(named) - {"linear_attention", "full_attention"}:
        raise fields.unsupported(f"layer_types 中的 {'、'.join(sorted(unknown))}")
    return named


@family("granitemoehybrid")
def granite_hybrid(fields: ConfigFields) -> ModelShape:
    """Granite 4: Mamba-2 and a few attention layers; a shared MLP in each, experts in most."""
    kinds = known_kinds(fields, fields.layer_types(["linear_attention"] * fields.depth))
    bias = fields.flag("attention_bias")
    attention = softmax_attention(fields, qkv_bias=bias, output_bias=bias)
    shared = DenseMlp(fields.hidden, fields.count("shared_intermediate_size"))
    experts = fields.count("num_local_experts", default=0)
    mlp: FeedForward = shared
    if experts:
        per_token = fields.count("num_experts_per_tok")
        size = fields.count("intermediate_size")
        mlp = MoeMlp(fields.hidden, size, experts, per_token, shared=shared)
    recurrence = granite_mamba(fields) if "linear_attention" in kinds else None
    layers = [
        Layer(attention if kind == "full_attention" else recurrence, mlp, 2 * fields.hidden)
        for kind in kinds
    ]
    return model_shape(fields, layers)


def granite_mamba(fields: ConfigFields) -> Recurrence:
    heads = fields.count("mamba_n_heads")
    inner = fields.count("mamba_expand", default=2) * fields.hidden
    head_dim = fields.get("mamba_d_head", default="auto")
    return mamba2(
        fields.hidden,
        heads,
        inner // heads if head_dim == "auto" else int(head_dim),
        fields.count("mamba_n_groups", default=1),
        fields.count("mamba_d_state"),
        fields.count("mamba_d_conv", default=4),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        projection_bias=fields.flag("mamba_proj_bias"),
    )


@family("nemotron_h")
def nemotron_h(fields: ConfigFields) -> ModelShape:
    """Each layer is one thing: Mamba-2 (M), attention (*), a ReLU² MLP (-) or experts (E)."""
    letters = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    pattern = fields.get("hybrid_override_pattern", "layers_block_type", "layer_types")
    names = {**letters, **_KINDS}
    kinds = [names.get(kind, kind) for kind in map(str, pattern)]
    if unknown := set(kinds) - set(letters.values()):
        raise fields.unsupported(f"层类型 {'、'.join(sorted(unknown))}")
    layers = [nemotron_layer(fields, kind) for kind in kinds]
    return model_shape(fields, layers)


def nemotron_layer(fields: ConfigFields, kind: str) -> Layer:
    """One layer of Nemotron-H, with its single norm."""
    if kind == "linear_attention":
        return Layer(nemotron_mamba(fields), None, fields.hidden)
    if kind == "full_attention":
        return Layer(softmax_attention(fields), None, fields.hidden)
    bias = fields.flag("mlp_bias")
    if kind == "mlp":
        size = fields.count("intermediate_size")
        return Layer(None, DenseMlp(fields.hidden, size, gated=False, bias=bias), fields.hidden)
    if bias:
        raise fields.unsupported("MoE 层的 mlp_bias")
    shared = fields.count("moe_shared_expert_intermediate_size")
    moe = MoeMlp(
        fields.hidden,
        fields.count("moe_intermediate_size"),
        fields.count("n_routed_experts"),
        fields.count("num_experts_per_tok"),
        gated=False,
        shared=DenseMlp(fields.hidden, shared, gated=False),
        expert_hidden=fields.get("moe_latent_size", default=None),
    )
    return Layer(None, moe, fields.hidden)


def nemotron_mamba(fields: ConfigFields) -> Recurrence:
    """vLLM keeps Nemotron-H's state in fp32 unless the config says otherwise."""
    return mamba2(
        fields.hidden,
        fields.count("mamba_num_heads"),
        fields.count("mamba_head_dim"),
        fields.count("n_groups", "mamba_n_groups"),
        fields.count("ssm_state_size"),
        fields.count("conv_kernel", "mamba_d_conv", default=4),
        conv_bias=fields.flag("use_conv_bias", "mamba_conv_bias", default=True),
        projection_bias=fields.flag("use_bias"),
        dtype=str(fields.get("mamba_ssm_cache_dtype", default="float32")),
    )


@family("jamba")
def jamba(fields: ConfigFields) -> ModelShape:
    """Seven Mamba layers to one attention; every other feed-forward is routed."""
    size, experts = fields.count("intermediate_size"), fields.count("num_experts")
    dense = DenseMlp(fields.hidden, size)
    moe = MoeMlp(fields.hidden, size, experts, fields.count("num_experts_per_tok"))
    attention_at = (fields.count("attn_layer_period"), fields.count("attn_layer_offset"))
    experts_at = (fields.count("expert_layer_period"), fields.count("expert_layer_offset"))
    attention, recurrence = softmax_attention(fields), jamba_mamba(fields)
    layers = [
        Layer(
            attention if i % attention_at[0] == attention_at[1] else recurrence,
            moe if experts > 1 and i % experts_at[0] == experts_at[1] else dense,
            2 * fields.hidden,
        )
        for i in range(fields.depth)
    ]
    return model_shape(fields, layers)


def jamba_mamba(fields: ConfigFields) -> Recurrence:
    rank = fields.get("mamba_dt_rank", default="auto")
    return mamba1(
        fields.hidden,
        fields.count("mamba_expand") * fields.hidden,
        fields.count("mamba_d_state"),
        ceil(fields.hidden / 16) if rank == "auto" else int(rank),
        fields.count("mamba_d_conv"),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        projection_bias=fields.flag("mamba_proj_bias"),
        inner_norms=True,
    )
