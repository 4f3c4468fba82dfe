"""Which model is recorded: real weights where they are, else a shape that vLLM can fill."""

import json
from pathlib import Path

import pytest

from inferlab.engines.shape_model import ARCHITECTURES, recorded_model, shape_folder
from inferlab.errors import UsageError
from inferlab.repository import root

CONFIGS = root() / "models" / "configs"
EMBEDDED = "models/lab-python-8m"


def test_the_labs_own_folder_has_real_weights():
    found = recorded_model("", "", EMBEDDED)
    assert (found.name, found.weights, found.flags) == ("lab-python-8m", "real", {})
    assert found.folder == root() / EMBEDDED


def test_a_model_that_is_not_here_is_its_shape_with_random_weights():
    found = recorded_model("", "", "Qwen/Qwen3-8B")
    assert (found.name, found.weights) == ("Qwen/Qwen3-8B", "random")
    assert found.flags == {"load-format": "dummy"}
    config = json.loads((found.folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["hidden_size"] == 4096


def test_a_configured_folder_counts_only_with_weights(tmp_path: Path):
    embedded = str(root() / EMBEDDED)
    assert recorded_model("", embedded, "Qwen/Qwen3-8B").weights == "real"
    assert recorded_model("", str(tmp_path), "Qwen/Qwen3-8B").name == "Qwen/Qwen3-8B"
    assert recorded_model("", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B").name == "Qwen/Qwen3-8B"
    assert recorded_model("Qwen/Qwen3-0.6B", embedded, "").name == "Qwen/Qwen3-0.6B"


def test_what_cannot_be_loaded_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"models/configs/nope\.json"):
        recorded_model("nobody/nope", "", "")
    with pytest.raises(UsageError, match="safetensors"):
        recorded_model(str(tmp_path), "", "")


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_a_shape_keeps_its_own_longest_length(kind: str, tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": kind, "max_position_embeddings": 9}), "utf-8")
    folder = shape_folder(config, tmp_path / "shape")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["model_max_length"] == 9
    assert (folder / "tokenizer.json").is_file()


def test_every_id_that_random_weights_can_answer_has_a_text(tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "qwen3", "vocab_size": 151_936}), "utf-8")
    folder = shape_folder(config, tmp_path / "shape")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = sorted(tokenizer["model"]["vocab"].values())
    assert ids == list(range(151_936))


def test_an_architecture_that_is_not_known_is_named(tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "abacus"}), encoding="utf-8")
    with pytest.raises(UsageError, match="abacus"):
        shape_folder(config, tmp_path / "shape")
