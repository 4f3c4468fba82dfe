"""Reading `config.json`: what is understood, and what is refused with one clear line."""

import json
from pathlib import Path
from typing import Any

import pytest

from inferlab.arithmetic.kv_cache import kv_bytes_per_token
from inferlab.arithmetic.mixers import LatentAttention, SoftmaxAttention
from inferlab.arithmetic.parameters import weight_bytes
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root

CONFIGS = root() / "models" / "configs"


def config(name: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads((CONFIGS / f"{name}.json").read_text()), **changes}


def test_same_shape_from_mapping_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("qwen3-8b")))
    shape = ModelShape.from_config(config("qwen3-8b"))
    assert shape == ModelShape.from_config(tmp_path)
    assert shape == ModelShape.from_config(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("qwen3-8b", {"GQA ＋ 门控 MLP": 36}),
        ("falcon-7b", {"MQA ＋ MLP": 32}),
        ("gemma-3-1b", {"MQA 滑窗 512 ＋ 门控 MLP": 22, "MQA ＋ 门控 MLP": 4}),
        ("deepseek-v3", {"MLA ＋ 门控 MLP": 3, "MLA ＋ MoE 8/256＋共享专家": 58}),
        ("nemotron-h-8b", {"Mamba-2": 24, "MLP": 24, "GQA": 4}),
        (
            "qwen3-next-80b-a3b",
            {
                "Gated DeltaNet ＋ MoE 10/512＋共享专家": 36,
                "GQA ＋ MoE 10/512＋共享专家": 12,
            },
        ),
    ],
)
def test_layer_kinds(name: str, kinds: dict[str, int]) -> None:
    assert ModelShape.from_config(config(name)).layer_kinds() == kinds


def test_multimodal_config_gives_its_language_model_and_says_what_is_left_out() -> None:
    shape = ModelShape.from_config(config("gemma-3-27b"))
    assert shape.model_type == "gemma3_text"
    assert shape.tied_embeddings
    assert shape.left_out == ("视觉／音频编码器",)


def test_details_that_change_a_count() -> None:
    gpt_oss = ModelShape.from_config(config("gpt-oss-20b")).layers[0].mixer
    assert isinstance(gpt_oss, SoftmaxAttention)
    assert (gpt_oss.sinks, gpt_oss.window, gpt_oss.qkv_bias) == (True, 128, True)
    lite = ModelShape.from_config(config("deepseek-v2-lite")).layers[0].mixer
    assert isinstance(lite, LatentAttention)
    assert lite.query_rank is None
    assert ModelShape.from_config(config("gpt2")).position_rows == 1024


def test_float32_checkpoints_are_served_in_bf16_as_vllm_does() -> None:
    assert ModelShape.from_config(config("gemma-2-9b")).dtype == "bf16"
    assert ModelShape.from_config(config("phi-2")).dtype == "fp16"


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block128"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq-4bit"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"type": "int", "num_bits": 4, "group_size": 128}}
                },
            },
            "int4",
        ),
    ],
)
def test_weight_format_comes_from_the_quantization_config(
    quantization: dict[str, Any], expected: str
) -> None:
    shape = ModelShape.from_config(config("qwen3-8b", quantization_config=quantization))
    assert shape.weight_format == expected


def test_a_model_computed_in_fp32_takes_twice_the_bytes() -> None:
    shape = ModelShape.from_config(config("qwen3-8b"))
    wide = shape.computed_in("float32")
    assert (wide.dtype, wide.weight_format) == ("fp32", "fp32")
    assert kv_bytes_per_token(wide) == 2 * kv_bytes_per_token(shape)
    assert weight_bytes(wide) == 2 * weight_bytes(shape)
    assert wide.computed_in("bfloat16") == shape == shape.computed_in("auto")


def test_quantised_weights_stay_what_they_are_whatever_is_computed_in() -> None:
    shape = ModelShape.from_config(config("qwen3-8b", quantization_config={"quant_method": "fp8"}))
    assert shape.computed_in("float16").weight_format == shape.weight_format == "fp8"


def test_an_unknown_dtype_is_refused_by_name() -> None:
    with pytest.raises(LabError, match="float99"):
        ModelShape.from_config(config("qwen3-8b")).computed_in("float99")


def test_unknown_family_is_named_with_what_to_do() -> None:
    with pytest.raises(LabError, match="rwkv9") as caught:
        ModelShape.from_config(config("qwen3-8b", model_type="rwkv9"))
    assert "families.py" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3-8b", {"hidden_size": None}, "hidden_size"),
        ("qwen3-8b", {"num_hidden_layers": "36"}, "不是非负整数"),
        ("qwen3-8b", {"vocab_size": -1}, "不是非负整数"),
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "layer_types 有 1 项"),
        ("gemma-2-9b", {"layer_types": ["chunked_attention"] * 42}, "chunked_attention"),
        ("phi-2", {"qk_layernorm": True}, "qk_layernorm"),
        ("nemotron-h-8b", {"hybrid_override_pattern": "MX"}, "X"),
    ],
)
def test_broken_or_unsupported_configs_are_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabError, match=message) as caught:
        ModelShape.from_config(config(name, **changes))
    assert caught.value.remedy


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="读不到模型配置"):
        ModelShape.from_config(tmp_path)
    broken = tmp_path / "config.json"
    for content, message in (("{", "不是合法的 JSON"), ("[]", "不是一个 JSON 对象")):
        broken.write_text(content)
        with pytest.raises(LabError, match=message):
            ModelShape.from_config(broken)
