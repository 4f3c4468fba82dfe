"""Reading fields of a `config.json` with types, aliases and one clear error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferlab.errors import LabError

_MISSING = object()

# Families whose configuration class in transformers does not fall back on hidden / heads.
_DEFAULT_HEAD_DIM = {
    "gpt_oss": 64,
    "minimax_m2": 128,
    "ministral3": 128,
    "nemotron_h": 128,
    "qwen3": 128,
    "qwen3_5_moe_text": 256,
    "qwen3_5_text": 256,
    "qwen3_next": 256,
    "qwen3_vl_text": 128,
    "seed_oss": 128,
}


@dataclass(frozen=True)
class ConfigFields:
    """A `config.json`'s fields. Names may be given with aliases; `null` counts as absent."""

    values: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        return str(self.values.get("model_type", ""))

    def get(self, *names: str, default: Any = _MISSING) -> Any:
        """The first of `names` that is present, else `default`.

        Raises:
            LabError: none is present and there is no default.
        """
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if default is _MISSING:
            raise LabError(
                f"模型配置（model_type={self.model_type!r}）缺少字段 {' / '.join(names)}",
                remedy="换用完整的 config.json",
            )
        return default

    def count(self, *names: str, default: int | None = None) -> int:
        """A number that must not be negative; required when `default` is None.

        Raises:
            LabError: missing, not an integer, or negative.
        """
        value = self.get(*names) if default is None else self.get(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise LabError(
                f"字段 {names[0]}={value!r} 不是非负整数", remedy="检查 config.json 是否被改坏"
            )
        return value

    def flag(self, *names: str, default: bool = False) -> bool:
        return bool(self.get(*names, default=default))

    @property
    def hidden(self) -> int:
        return self.count("hidden_size", "n_embd")

    @property
    def depth(self) -> int:
        return self.count("num_hidden_layers", "n_layer")

    @property
    def query_heads(self) -> int:
        return self.count("num_attention_heads", "n_head")

    @property
    def kv_heads(self) -> int:
        return self.count("num_key_value_heads", default=self.query_heads)

    @property
    def head_dim(self) -> int:
        usual = self.hidden // self.query_heads
        return self.count("head_dim", default=_DEFAULT_HEAD_DIM.get(self.model_type, usual))

    def layer_types(self, pattern: list[str]) -> list[str]:
        """`layer_types` of new configs, else the `pattern` that old ones imply.

        Raises:
            LabError: the list's length is not the number of layers.
        """
        kinds = list(self.get("layer_types", "layers_block_type", default=pattern))
        if len(kinds) != self.depth:
            raise LabError(
                f"layer_types 有 {len(kinds)} 项，但 num_hidden_layers={self.depth}",
                remedy="检查 config.json 是否被改坏",
            )
        return kinds

    def unsupported(self, what: str) -> LabError:
        """The error for a variant whose count would be wrong if it were passed over."""
        return LabError(
            f"模型配置（model_type={self.model_type!r}）用了尚未支持的结构：{what}",
            remedy="在 src/inferlab/arithmetic/families_*.py 补上，并在 tests/golden 加一条参数量",
        )


def weight_format_of(fields: ConfigFields, dtype: str) -> str:
    """The name of the checkpoint's weight format: from `quantization_config`, else its dtype.

    Methods that are not known come back as their own name, so that asking for their bytes fails by
    name while everything else about the model still works.
    """
    quantization = fields.get("quantization_config", "compression_config", default=None)
    if not quantization:
        return dtype
    method = str(quantization.get("quant_method", "unknown"))
    if method == "compressed-tensors":
        return _compressed_tensors_format(quantization)
    if method == "fp8":
        return "fp8_block128" if quantization.get("weight_block_size") else "fp8"
    if method in ("gptq", "awq"):
        four_bits = quantization.get("bits") == 4 and quantization.get("group_size") == 128
        return "int4" if four_bits else f"{method}-{quantization.get('bits')}bit"
    return {"mxfp4": "mxfp4_experts"}.get(method, method)


def _compressed_tensors_format(quantization: Mapping[str, Any]) -> str:
    """llm-compressor's `config_groups`; only its usual presets have a name here."""
    groups = list((quantization.get("config_groups") or {}).values())
    weights = (groups[0].get("weights") or {}) if groups else {}
    key = (weights.get("type"), weights.get("num_bits"), weights.get("group_size"))
    names = {("float", 8, None): "fp8", ("int", 8, None): "int8", ("int", 4, 128): "int4"}
    return names.get(key, f"compressed-tensors-{key[0]}{key[1]}-g{key[2]}")
