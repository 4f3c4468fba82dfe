"""One process reads another's memory through NIXL, on the CPU; between GPUs it is recorded."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from inferlab.engines.environments import python_with_torch
from inferlab.repository import root

pytestmark = pytest.mark.engine
READS = """
import json
from inferlab.hardware.nixl_read import reads
if __name__ == "__main__":
    found = [series.as_dict() for series in reads("cpu", "cpu", (2, 8), 1 << 16, 3)]
    print(json.dumps(found))
"""
# Two pieces of four words, the last first, as they should come and with one word of another place.
COMPARED = """
import torch
from inferlab.hardware.nixl_read import compare
compare(torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]), 2, 32)
compare(torch.tensor([4, 5, 6, 7, 0, 1, 2, 7]), 2, 32)
"""


def _run(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(script, encoding="utf-8")
    return subprocess.run(
        [python_with_torch(), file], capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PYTHONPATH": str(root() / "src")},
    )  # fmt: skip


def test_reads_in_one_piece_and_in_many(tmp_path: Path):
    ended = _run(READS, tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert [tuple(each["labels"].values()) for each in found] == [
        (2 << 16, 1, "idle"), (2 << 16, 1, "work"), (2 << 16, 2, "work"),
        (8 << 16, 1, "idle"), (8 << 16, 1, "work"), (8 << 16, 8, "work"),
    ]  # fmt: skip
    assert all(len(each["values"]) == 3 and min(each["values"]) > 0 for each in found)


def test_other_bytes_are_seen(tmp_path: Path):
    ended = _run(COMPARED, tmp_path)
    assert "第 1 片读到的不是对面的数据" in ended.stderr
    assert "第 0 片" not in ended.stderr
