"""Parameter counts against published figures, and what must hold for any model."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from inferlab.arithmetic.parameters import count_parameters, weight_bytes
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = root() / "models" / "configs"
ENTRIES: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "parameter_counts.yaml").read_text())
PUBLISHED = [entry for entry in ENTRIES if entry["published"]]
QWEN3_8B = CONFIGS / "qwen3-8b.json"


def shape_of(name: str) -> ModelShape:
    return ModelShape.from_config(CONFIGS / f"{name}.json")


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry["config"])
def test_total_is_the_published_count(entry: dict[str, Any]) -> None:
    expected = entry["published"] - entry.get("extra", 0)
    assert count_parameters(shape_of(entry["config"])).total == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if "active" in entry], ids=lambda entry: entry["config"]
)
def test_active_parameters_are_the_published_ones_as_rounded(entry: dict[str, Any]) -> None:
    count = count_parameters(shape_of(entry["config"]))
    assert getattr(count, entry["active_counted_as"]) == pytest.approx(entry["active"], rel=0.03)


def test_golden_file_covers_every_kind_the_lab_promises() -> None:
    kinds = {kind for entry in PUBLISHED for kind in entry["kinds"]}
    promised = {"dense", "GQA", "MQA", "MHA", "MLA", "MoE", "sliding-window", "hybrid", "tied"}
    assert promised <= kinds
    assert len(PUBLISHED) >= 16


def test_every_golden_config_has_an_entry() -> None:
    configs = {path.stem for path in CONFIGS.glob("*.json")}
    assert configs == {entry["config"] for entry in ENTRIES}


def test_parts_add_up() -> None:
    count = count_parameters(shape_of("qwen3-8b"))
    assert count.embedding == count.head == 151936 * 4096
    assert count.total == sum((count.embedding, count.attention, count.mlp, count.norm, count.head))
    assert count.active == count.total


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["config"])
def test_active_is_at_most_total(entry: dict[str, Any]) -> None:
    count = count_parameters(shape_of(entry["config"]))
    assert count.active <= count.total
    assert ("MoE" in entry["kinds"]) == (count.active < count.total)


@given(
    heads=st.sampled_from([1, 2, 4, 8]),
    layers=st.integers(1, 6),
    hidden=st.sampled_from([64, 128, 384]),
    vocab=st.integers(10, 5000),
)
def test_tying_saves_exactly_one_table(heads: int, layers: int, hidden: int, vocab: int) -> None:
    config = {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": heads,
        "head_dim": 16,
        "vocab_size": vocab,
    }
    tied, untied = (
        count_parameters(ModelShape.from_config({**config, "tie_word_embeddings": tie}))
        for tie in (True, False)
    )
    assert untied.total - tied.total == vocab * hidden
    assert tied.head == 0


def test_weight_bytes_of_plain_and_quantized_formats() -> None:
    shape = shape_of("qwen3-8b")
    count = count_parameters(shape)
    assert weight_bytes(shape) == weight_bytes(shape, "bf16") == 2 * count.total
    # Embedding and head stay bf16; each of the 36 layers' four matrices has one fp32 scale a row.
    kept = 2 * (count.embedding + count.head + count.norm + 36 * 2 * 128)
    quantized = count.attention + count.mlp - 36 * 2 * 128
    rows = 36 * (6144 + 4096 + 2 * 12288 + 4096)
    assert weight_bytes(shape, "fp8") == kept + quantized + 4 * rows
    assert weight_bytes(shape, "int4") == kept + quantized // 2 + 2 * quantized // 128


def test_deepseek_v3_ships_one_fp32_scale_for_each_block_of_128_by_128() -> None:
    """41,540,496 scales are in the checkpoint's metadata, one MTP layer's included."""
    shape = shape_of("deepseek-v3")
    scales = [
        matrix.copies * -(-matrix.inputs // 128) * -(-matrix.outputs // 128)
        for layer in (*shape.layers, shape.layers[-1])
        for part in (layer.mixer, layer.mlp)
        if part
        for matrix in part.matrices
        if matrix.quantizable
    ]
    assert sum(scales) == 41_540_496
    assert shape.weight_format == "fp8_block128"


def test_gpt_oss_20b_fits_a_16_gb_card_because_only_its_experts_are_mxfp4() -> None:
    """The model card gives 12.8 GiB for the checkpoint."""
    assert weight_bytes(shape_of("gpt-oss-20b")) / 2**30 == pytest.approx(12.8, rel=0.01)


@pytest.mark.parametrize("name", ["int3", "bfloat17"])
def test_unknown_weight_format_is_named(name: str) -> None:
    with pytest.raises(LabError, match=name):
        weight_bytes(shape_of("gpt2"), name)
