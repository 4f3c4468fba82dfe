"""Servers are stopped with all that they started, and only they."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from inferlab.engines.processes import (
    ProcessId,
    session_members,
    start_in_own_session,
    stop_session,
    wait_until_gone,
)

SLEEPER = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
)
PARENT = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]);"
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True);"
    "print('started', flush=True); time.sleep(60)"
)


def start(code: str, folder: Path) -> ProcessId:
    """Run Python code as a server would be run, and wait for its first output."""
    log = folder / "log"
    child = start_in_own_session(
        [sys.executable, "-c", code], log=log, environment=os.environ, folder=folder
    )
    leader = ProcessId.of(child.pid)
    while "print" in code and not log.read_text():
        time.sleep(0.02)
    return leader


def living(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie waits only for its parent to notice."""
    running = [process for process in family if process.is_running()]
    return [process for process in running if process.status() != psutil.STATUS_ZOMBIE]


def test_children_end_with_their_server_even_in_sessions_of_their_own(tmp_path: Path):
    leader = start(PARENT, tmp_path)
    family = session_members(leader)
    assert len(family) == 3
    stop_session(leader)
    assert living(family) == []


def test_orphans_of_a_killed_server_are_found_by_their_session(tmp_path: Path):
    leader = start(PARENT.replace(", start_new_session=True", ""), tmp_path)
    family = session_members(leader)
    psutil.Process(leader.pid).kill()
    assert leader.exit_code() in (None, -9)
    stop_session(leader)
    assert living(family) == []
    assert leader.exit_code() == -9


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path):
    leader = start(f"{STUBBORN}; time.sleep(60)", tmp_path)
    stop_session(leader, patience_s=0.5)
    assert wait_until_gone(leader, timeout_s=1)
    assert leader.exit_code() == -9


def test_a_recycled_pid_is_not_taken_for_the_server():
    myself = ProcessId.of(os.getpid())
    assert myself.is_alive()
    assert not ProcessId(myself.pid, myself.created - 100).is_alive()


def test_stopping_a_server_that_is_gone_touches_nothing_else(tmp_path: Path):
    bystander = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        leader = start("print(1)", tmp_path)
        assert wait_until_gone(leader, timeout_s=5)
        stop_session(leader)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize(("code", "exit_code"), [("print(1)", 0), ("print(1); exit(3)", 3)])
def test_the_exit_code_is_kept(code: str, exit_code: int, tmp_path: Path):
    leader = start(code, tmp_path)
    assert wait_until_gone(leader, timeout_s=5)
    assert leader.exit_code() == exit_code
    assert leader.exit_code() == exit_code
