"""A module in a process of its own: what it started ends with it."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from inferlab.errors import LabError
from inferlab.records.module_experiments import _run_to_its_end

SERVER = "import subprocess, sys; from pathlib import Path; import time; \
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']); \
Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(float(sys.argv[2]))"


@pytest.mark.parametrize("seconds", [300.0, 0.0])
def test_a_modules_servers_do_not_outlive_it(tmp_path: Path, seconds: float) -> None:
    told = tmp_path / "pid"
    command = [sys.executable, "-c", SERVER, str(told), str(seconds)]
    if seconds:
        with pytest.raises(LabError, match="还没有测完"):
            _run_to_its_end(command, os.environ, 4.0, quiet=True)
    else:
        assert _run_to_its_end(command, os.environ, 60.0, quiet=False) == (0, b"")
    deadline = time.monotonic() + 10
    pid = int(told.read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_modules_own_words_are_kept() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('没有 GPU')"]
    code, errors = _run_to_its_end(command, os.environ, 60.0, quiet=True)
    assert code == 1 and errors.decode().strip() == "没有 GPU"
