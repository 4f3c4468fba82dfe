"""JupyterLab on this machine: 127.0.0.1 only, with a token, opened at the repository."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from inferlab.engines.processes import start_in_own_session
from inferlab.errors import LabError
from inferlab.repository import root

CONTAINER_TOKEN = "lab"  # the compose files' default


def start(port: int, token: str, *, lab: str, log: Path) -> subprocess.Popen[bytes]:
    """Start JupyterLab with the lab's notebook as its first page."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser"]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root(),
        "LabApp.default_url": f"/lab/tree/{first_page(lab)}",
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "ServerApp.allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    # The token goes through the environment: a command line can be read by every user.
    environment = {**os.environ, "JUPYTER_TOKEN": token, "INFERLAB_ROOT": str(root())}
    return start_in_own_session(command, log=log, environment=environment, folder=root())


def first_page(lab: str) -> str:
    """The lab's notebook, relative to the root; the notebooks' folder while there is none."""
    notebooks = sorted((root() / "notebooks").glob(f"{lab.replace('/', '_')}_*.ipynb"))
    return str(notebooks[0].relative_to(root())) if notebooks else "notebooks"


def url(port: int, token: str) -> str:
    """The address to open, token included."""
    return f"http://127.0.0.1:{port}/lab?token={token}"


def wait_until_ready(
    port: int, token: str, problem: Callable[[], str], timeout_s: float = 90
) -> None:
    """Wait for JupyterLab's own status page.

    Args:
        problem: gives why JupyterLab has ended, "" while it runs.

    Raises:
        LabError: it ended or did not answer in time.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    ended = ""
    while time.monotonic() < deadline and not (ended := problem()):
        try:
            with opener.open(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise LabError(
        f"JupyterLab 没有启动：{ended or f'{timeout_s:.0f} s 内没有响应'}",
        remedy="用 ./lab logs --jupyter 看日志",
    )
