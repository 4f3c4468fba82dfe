"""An engine's compile caches: variables that place them, and the kernels that were chosen."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Of the files that hold what won: what is not an option of the launch.
BOOKKEEPING = {"configs_hash", "found_by_coordesc", "time_taken_ms", "triton_cache_hash"}
NAME = re.compile(r"^def (triton_\w+)\(", re.MULTILINE)

Chosen = dict[str, dict[str, Any]]


def cache_variables(folder: Path) -> dict[str, str]:
    """Variables that put the caches of vLLM, Inductor and Triton below a folder."""
    return {
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


def chosen_kernels(folder: Path) -> Chosen:
    """Kernels below a folder whose launch options Inductor chose by timing them.

    Returns:
        hash → `names` (of the kernels in the same place, usually one) and the options that won:
        `XBLOCK`, `R0_BLOCK`, `num_warps`, …. The hash is of the kernel's source and torch's
        version: the same kernel has it at every start. Empty on a CPU.

    Source: torch/_inductor/runtime/autotune_cache.py, torch 2.13.
    """
    found: Chosen = {}
    for path in sorted(folder.rglob("*.best_config")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        options = {key: value for key, value in content.items() if key not in BOOKKEEPING}
        sources = [each.read_text(encoding="utf-8") for each in path.parent.glob("*.py")]
        names = {name for text in sources for name in NAME.findall(text)}
        found[path.stem] = {"names": sorted(names), **options}
    return found


def chosen_differently(starts: Sequence[Chosen]) -> list[str]:
    """Hashes of the kernels that do not have the same options at every start."""
    options = [
        {key: {k: v for k, v in each.items() if k != "names"} for key, each in start.items()}
        for start in starts
    ]
    every = {key for each in options for key in each}
    return sorted(
        key for key in every if any(each.get(key) != options[0].get(key) for each in options)
    )
