"""The null server in a process of its own, for tests and the client's self-check."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferlab.errors import LabError
from inferlab.load.endpoint import Api, Endpoint


@dataclass(frozen=True, slots=True)
class NullProcess:
    """A running null server."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def endpoint(self, api: Api = "completions", **options: Any) -> Endpoint:
        """An endpoint that asks it."""
        return Endpoint(self.url, api=api, **options)

    def log(self) -> list[dict[str, Any]]:
        """Its truth about the requests that have ended, in order of arrival; see `null_server`."""
        with urllib.request.urlopen(f"{self.url}/null/log", timeout=60) as answer:
            return json.loads(answer.read())

    def cpu_s(self) -> float:
        """CPU seconds it has used, start-up included; Linux only."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return sum(map(int, ticks)) / 100

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone and its port refuses. Linux only."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # whoever started it reaps it


@contextmanager
def null_server(**script: Any) -> Iterator[NullProcess]:
    """Starts a null server with the given `Script` fields and stops it at the end.

    Raises:
        LabError: it did not start.
    """
    command = [sys.executable, "-m", "inferlab.load.null_server"]
    for name, value in script.items():
        command += [f"--{name}" if value else f"--no-{name}"] if isinstance(value, bool) else []
        command += [] if isinstance(value, bool) else [f"--{name}", str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            if not line:
                raise LabError("空服务器没有启动", remedy=" ".join(command))
            yield NullProcess(int(line[1]), process.pid)
        finally:
            process.terminate()
            process.wait(timeout=10)
