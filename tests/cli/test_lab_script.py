"""`./lab`, the POSIX shell entry: on machines that cannot run it yet, and how quick it is."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from inferlab.repository import root

PYTHONS = ("python3.13", "python3.12", "python3.11", "python3", "python")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the script and what it reads, without `.venv`."""
    for name in ("lab", "requirements.txt", "pyproject.toml"):
        shutil.copy(root() / name, tmp_path / name)
    return tmp_path


def start(clone: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `./lab` where every Python is a shell script with this body."""
    tools = clone / "tools"
    tools.mkdir(exist_ok=True)
    for name in PYTHONS:
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    return subprocess.Popen(
        ["sh", str(clone / "lab"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(clone: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    process = start(clone, script, *arguments)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def test_an_old_python_is_named_with_what_to_install(clone: Path):
    done = run(clone, '[ "$1" = --version ] && echo "Python 3.8.10" && exit; exit 1')
    assert done.returncode == 1
    assert done.stderr.startswith("错误: 需要 Python 3.11 或更新的版本，找到的是：Python 3.8.10")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_venv_module_names_the_debian_package(clone: Path):
    script = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; esac'
    done = run(clone, script)
    assert done.returncode == 1
    assert "缺少 venv / ensurepip" in done.stderr
    assert "python3.11-venv" in done.stderr


def test_a_failed_installation_says_what_to_do_and_is_not_taken_for_done(clone: Path):
    make_venv = (
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi\n'
        '[ "$2" = pip ] && exit 1\nexit 0'
    )
    done = run(clone, make_venv)
    assert done.returncode == 1
    assert "LAB_PIP_INDEX_URL" in done.stderr
    assert not (clone / ".venv" / ".lab-stamp").exists()
    assert (clone / ".venv" / ".lab-unfinished").exists()


@pytest.mark.skipif(not shutil.which("flock"), reason="no flock on this machine")
def test_of_two_at_once_one_installs_and_the_other_waits(clone: Path):
    make_venv = (
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi\n'
        '[ "$2" = pip ] || exit 0\n'
        f'echo pip >>"{clone}/installed"; sleep 1\n'
        f'printf "#!/bin/sh\\necho reached\\n" >"{clone}/.venv/bin/inferlab"\n'
        f'chmod +x "{clone}/.venv/bin/inferlab"'
    )
    first = start(clone, make_venv)
    while not (clone / "installed").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = run(clone, make_venv)
    out, _ = first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert (out, second.stdout) == ("reached\n", "reached\n")
    assert second.stderr == "另一个 ./lab 正在准备环境 .venv，等它装完 …\n"
    assert (clone / "installed").read_text() == "pip\npip\n", "the requirements, the lab itself"


def test_the_script_is_posix_shell():
    shells = [path for name in ("dash", "sh") if (path := shutil.which(name))]
    for shell in shells:
        assert subprocess.run([shell, "-n", str(root() / "lab")]).returncode == 0


@pytest.mark.skipif(
    not (root() / ".venv" / ".lab-stamp").exists(), reason="this clone was not set up by ./lab"
)
def test_the_second_time_the_command_is_reached_quickly():
    began = time.monotonic()
    done = subprocess.run([str(root() / "lab"), "--help"], capture_output=True, env=os.environ)
    assert done.returncode == 0
    assert time.monotonic() - began < 3
