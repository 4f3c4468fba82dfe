"""Small labs in a folder of their own."""

from pathlib import Path
from typing import Any

import yaml

ENGINE = {"served-model-name": "lab", "kv-cache-memory-bytes": 64 << 20, "enforce-eager": True}
MODELS = {"cuda": "Qwen/Qwen3-8B", "cpu": "models/lab-python-8m"}
BENCH: dict[str, Any] = {
    "id": "bench", "engines": ["small"], "measure": "bench", "minutes": 1,
    "load": {"prompt": 16, "output": 8, "concurrency": [1, 2], "requests": 6},
}  # fmt: skip


def lab_folder(
    folder: Path, *experiments: dict[str, Any], engines: tuple[str, ...] = ("small", "other"),
    **content: Any,
) -> Path:  # fmt: skip
    """`lab.yaml` with these experiments, and CPU and GPU configurations of each engine."""
    (folder / "engine").mkdir(parents=True, exist_ok=True)
    for name in engines:
        for file in (f"{name}.yaml", f"{name}-cpu.yaml"):
            (folder / "engine" / file).write_text(yaml.safe_dump(ENGINE), encoding="utf-8")
    lab = {"recorded_model": MODELS, "experiments": list(experiments), **content}
    (folder / "lab.yaml").write_text(yaml.safe_dump(lab, allow_unicode=True), encoding="utf-8")
    return folder
