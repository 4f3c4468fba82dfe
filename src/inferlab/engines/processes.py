"""Child processes that leave nothing behind: each server is the leader of its own session."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessId:
    """A process that can be recognised later: a recycled pid has another creation time."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        return cls(pid, psutil.Process(pid).create_time())

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal; 1 when it was not started by this command."""
        child = _children.get(self.pid)
        if child:
            return child.poll()
        return None if self.is_alive() else 1


# Kept, so that a child's exit code can be read: a forgotten Popen is reaped behind our back.
_children: dict[int, subprocess.Popen[bytes]] = {}


def start_in_own_session(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start a server detached from the terminal; its output goes to `log` (emptied first)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    _children[child.pid] = child
    return child


def first_exit_code(processes: Iterable[ProcessId]) -> int | None:
    """Of the first that has ended; None while all run."""
    codes = (process.exit_code() for process in processes)
    return next((code for code in codes if code is not None), None)


def stop_session(leader: ProcessId, *, patience_s: float = 15.0) -> None:
    """End a session leader and all that it started: asked first, killed after `patience_s`.

    The members are found by session id and by descent, so workers whose parent has already died,
    and kernels that opened a session of their own, are ended too.
    """
    family = session_members(leader)
    _signal_all(family, signal.SIGTERM)
    _wait_for_end(family, patience_s)
    alive = [p for p in {*family, *session_members(leader)} if _is_running(p)]
    _signal_all(alive, signal.SIGKILL)
    _wait_for_end(alive, 5)
    if child := _children.get(leader.pid):
        child.poll()


def session_members(leader: ProcessId) -> list[psutil.Process]:
    """The living processes of `leader`'s session and its descendants, the leader included."""
    members = {p for p in psutil.process_iter() if _belongs(p, leader)}
    if leader.is_alive():
        with contextlib.suppress(psutil.Error):
            members.update(psutil.Process(leader.pid).children(recursive=True))
    return [process for process in members if _is_running(process)]


def wait_until_gone(leader: ProcessId, timeout_s: float) -> bool:
    """Whether the whole session has ended within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while session_members(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _belongs(process: psutil.Process, leader: ProcessId) -> bool:
    # A session id is never reused while a member lives; older processes cannot be members.
    try:
        return os.getsid(process.pid) == leader.pid and process.create_time() >= leader.created - 1
    except (OSError, psutil.Error):
        return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _wait_for_end(processes: list[psutil.Process], timeout_s: float) -> None:
    # Not psutil.wait_procs: it reaps our child and with it the exit code.
    deadline = time.monotonic() + timeout_s
    while any(_is_running(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
