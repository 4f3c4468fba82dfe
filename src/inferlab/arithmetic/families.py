"""What each model family does its own way: the registry, and what the families share.

One small function a family: `families_dense.py`, `families_moe.py`, `families_hybrid.py`.

Every one was checked against the model class of transformers 5.19: same config, meta device, the
same total to the last parameter, biases, missing fields and odd layouts included (Kimi-K2 has
DeepSeek-V3's class); `tests/golden/README.md` says how to repeat that. What a field means is
defined by the family's `configuration_*.py` and `modeling_*.py` in transformers.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from inferlab.arithmetic.config_fields import ConfigFields, weight_format_of
from inferlab.arithmetic.matrices import dtype_name
from inferlab.arithmetic.mixers import SoftmaxAttention
from inferlab.arithmetic.shapes import Layer, ModelShape
from inferlab.errors import LabError

Builder = Callable[[ConfigFields], ModelShape]
FAMILIES: dict[str, Builder] = {}


def family(*model_types: str) -> Callable[[Builder], Builder]:
    """Registers a builder for these `model_type`s."""

    def register(builder: Builder) -> Builder:
        FAMILIES.update(dict.fromkeys(model_types, builder))
        return builder

    return register


def build_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of a parsed `config.json`; a multimodal model's is that of its `text_config`.

    Raises:
        LabError: the family is unknown, a field is missing, or a variant is not supported.
    """
    _register_all()
    if text := config.get("text_config"):
        inherited = ("tie_word_embeddings", "dtype", "torch_dtype", "quantization_config")
        outer = {key: config[key] for key in inherited if config.get(key) is not None}
        return build_shape({"left_out": ["视觉／音频编码器"], **outer, **text})
    fields = ConfigFields(config)
    if fields.model_type not in FAMILIES:
        raise LabError(
            f"不认识的模型家族 model_type={fields.model_type!r}",
            remedy="在 src/inferlab/arithmetic/families.py 加一个小函数描述它，"
            f"或换用已支持的家族：{'、'.join(sorted(FAMILIES))}",
        )
    return FAMILIES[fields.model_type](fields)


def model_shape(
    fields: ConfigFields,
    layers: list[Layer],
    *,
    tied: bool = False,
    final_norm: int | None = None,
    position_rows: int = 0,
    head_bias: bool = False,
) -> ModelShape:
    """The parts that all families share; `tied` is the default where the config is silent."""
    dtype = dtype_name(str(fields.get("dtype", "torch_dtype", default="bf16")))
    # vLLM's `--dtype auto` serves fp32 checkpoints in bf16.
    dtype = "bf16" if dtype == "fp32" else dtype
    left_out = list(fields.get("left_out", default=[]))
    if fields.count("num_nextn_predict_layers", "num_mtp_layers", default=0):
        left_out.append("MTP 层")
    return ModelShape(
        model_type=fields.model_type,
        hidden_size=fields.hidden,
        vocab_size=fields.count("vocab_size"),
        layers=tuple(layers),
        tied_embeddings=fields.flag("tie_word_embeddings", default=tied),
        dtype=dtype,
        weight_format=weight_format_of(fields, dtype),
        max_position_embeddings=fields.count("max_position_embeddings", "n_positions", default=0),
        final_norm=fields.hidden if final_norm is None else final_norm,
        position_rows=position_rows,
        head_bias=head_bias,
        left_out=tuple(left_out),
    )


def softmax_attention(fields: ConfigFields, **differences: Any) -> SoftmaxAttention:
    """The usual attention of a config, with a family's differences."""
    return SoftmaxAttention(
        hidden_size=fields.hidden,
        query_heads=fields.query_heads,
        kv_heads=fields.kv_heads,
        head_dim=fields.head_dim,
        **differences,
    )


def windows(fields: ConfigFields, pattern: list[str], default: int = 0) -> list[int | None]:
    """Each layer's window: None for full attention."""
    known = {"full_attention", "sliding_attention"}
    kinds = fields.layer_types(pattern)
    if unknown := set(kinds) - known:
        raise fields.unsupported(f"layer_types 中的 {'、'.join(sorted(unknown))}")
    if "sliding_attention" not in kinds:
        return [None] * len(kinds)
    window = fields.count("sliding_window", default=default or None)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def every_nth_full(depth: int, period: int) -> list[str]:
    """Sliding layers with a full one at each `period`-th place."""
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(depth)]


def _register_all() -> None:
    """Imports the modules of families, which register themselves (they import this module)."""
    for name in ("dense", "moe", "hybrid"):
        import_module(f"inferlab.arithmetic.families_{name}")
