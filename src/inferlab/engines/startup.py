"""Waiting for an engine: progress from its log, a completion at the end, one cause on failure."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inferlab.engines import health, startup_log
from inferlab.errors import LabError
from inferlab.repository import root, versions

STALL_S = 600.0  # no new log line for so long: compiling a large model can be silent for minutes

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Starting:
    """An engine that was started and does not answer yet.

    Attributes:
        read_logs: gives the logs so far: the engine's, or those of workers and router.
        exit_code: gives None while the engine lives.
        log: where the log lies, or will lie after a failure.
        config: the engine's YAML.
    """

    base_url: str
    read_logs: Callable[[], list[str]]
    exit_code: Callable[[], int | None]
    log: Path
    config: Path


def wait_until_answering(
    starting: Starting, on_progress: OnProgress, *, stall_s: float = STALL_S, poll_s: float = 0.5
) -> float:
    """Wait until the engine completes a token; `on_progress` gets (phase, seconds) at each look.

    Returns:
        Seconds waited.

    Raises:
        LabError: the engine ended, its log says that it waits for ever, or stood still for
            `stall_s`; with cause and remedy.
    """
    began = changed = time.monotonic()
    seen = ""
    while True:
        exit_code = starting.exit_code()
        logs = starting.read_logs()
        log = "\n".join(logs)
        now = time.monotonic()
        if log != seen:
            seen, changed = log, now
        on_progress(startup_log.phase(*logs), now - began)
        hangs = now - changed > stall_s or startup_log.waits_for_ever(log)
        if exit_code is not None or hangs:
            raise failure(starting, log, exit_code)
        if health.answers(starting.base_url):
            return time.monotonic() - began
        time.sleep(poll_s)


def failure(starting: Starting, log: str, exit_code: int | None) -> LabError:
    """The one line that says why the engine did not start."""
    cause = startup_log.cause_of_failure(
        log,
        exit_code=exit_code,
        config=shown(starting.config),
        driver=versions()["cuda"]["driver"],
    )
    where = f"日志：{shown(starting.log)}"
    return LabError(f"引擎没有启动：{cause.cause}", remedy=f"{cause.remedy}（{where}）")


def shown(path: Path) -> str:
    """A path as the reader knows it: below the root where it is."""
    return str(path.relative_to(root()) if path.is_relative_to(root()) else path)
