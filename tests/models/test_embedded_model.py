"""The embedded model: files, shape, card; and through the real engine its figures."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from inferlab.arithmetic.parameters import count_parameters
from inferlab.arithmetic.shapes import ModelShape
from inferlab.hardware.host import describe_host
from inferlab.measure.embedded_model import (
    COMPLETION_TOKENS,
    DRAFT,
    MODELS,
    TARGET,
    Completion,
    engine,
    gaps_to_best,
    greedy,
)
from inferlab.measure.perplexity import perplexity
from inferlab.repository import root

BOTH = pytest.mark.parametrize("name", [TARGET, DRAFT])
NEAR_TIE_NATS = 0.1
GROUP = 128  # elements that share a scale in group-wise INT4 and block-wise FP8 kernels


def training(name: str) -> dict:
    return json.loads((MODELS / name / "training.json").read_text(encoding="utf-8"))


def card_script() -> ModuleType:
    path = root() / "scripts" / "lab_model_card.py"
    spec = importlib.util.spec_from_file_location("lab_model_card", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored_tensors(folder: Path) -> dict[str, list[int]]:
    """Name → shape, from the header of a safetensors file (8 bytes of length, then JSON)."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    return {name: tensor["shape"] for name, tensor in header.items()}


def test_both_models_together_take_at_most_20_mb():
    folders = [MODELS / TARGET, MODELS / DRAFT]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 20e6


def test_the_draft_shares_the_tokenizer():
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (MODELS / DRAFT / file).read_bytes() == (MODELS / TARGET / file).read_bytes()


@BOTH
def test_the_arithmetic_counts_what_the_file_holds(name: str):
    counted = count_parameters(ModelShape.from_config(MODELS / name)).total
    shapes = stored_tensors(MODELS / name).values()
    stored = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    assert counted == stored == training(name)["parameters"]


@BOTH
def test_matrices_fit_group_wise_kernels(name: str):
    shapes = stored_tensors(MODELS / name)
    matrices = {tensor: shape for tensor, shape in shapes.items() if len(shape) == 2}
    assert {tensor for tensor, (_, inputs) in matrices.items() if inputs % GROUP} == set()
    fused = [
        sum(matrices[f"model.layers.0.{part}_proj.weight"][0] for part in parts)
        for parts in (
            ("self_attn.q", "self_attn.k", "self_attn.v"),
            ("self_attn.o",),
            ("mlp.gate", "mlp.up"),
            ("mlp.down",),
        )
    ]
    assert [outputs for outputs in fused if outputs % GROUP] == []


def test_the_card_shows_what_the_files_say():
    card = (MODELS / "README.md").read_text(encoding="utf-8")
    assert card_script().render(card) == card
    assert (MODELS / "loss.png").stat().st_size <= 60_000


@pytest.mark.engine
@pytest.mark.slow
def test_held_out_perplexity_through_the_engine_is_that_of_training(embedded_engine: str):
    expected = training(TARGET)["held_out"]
    text = (MODELS / "heldout.txt").read_text(encoding="utf-8")
    found = perplexity(text, embedded_engine)
    assert found.tokens == expected["tokens"]
    assert found.perplexity == pytest.approx(expected["perplexity"], rel=0.01)
    assert found.bits_per_byte == pytest.approx(expected["bits_per_byte"], rel=0.01)


def test_the_card_was_measured_with_the_engine_as_it_is_now():
    measured = json.loads((MODELS / "measured.json").read_text(encoding="utf-8"))
    assert engine().items() <= measured.items(), "python scripts/lab_model_card.py measure"


@pytest.mark.engine
@pytest.mark.slow
def test_the_cards_completions_come_out_again(embedded_engine: str):
    """The same text on the same CPU; on another, rounding may only decide between near ties."""
    measured = json.loads((MODELS / "measured.json").read_text(encoding="utf-8"))
    shown = [Completion(**case) for case in measured["completions"]]
    assert len(shown) == 5
    for completion in shown:
        assert max(gaps_to_best(embedded_engine, completion)) < NEAR_TIE_NATS
    if describe_host().cpu.model_dump(mode="json") == measured["cpu"]:
        assert [greedy(embedded_engine, c.prompt, COMPLETION_TOKENS) for c in shown] == shown
