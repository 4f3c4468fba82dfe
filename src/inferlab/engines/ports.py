"""Whether a port of this machine is free, and who holds it."""

import contextlib
import socket

import psutil

from inferlab.errors import LabError


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on `host:port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """`name (pid N)` of the process that listens on `port`; empty when it cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr[1] == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def require_free(port: int, setting: str) -> None:
    """Raise a LabError that names the port, its holder and the setting to change."""
    if is_free(port):
        return
    who = holder(port)
    raise LabError(
        f"端口 {port} 已被占用" + (f"：{who}" if who else ""),
        remedy=f"停掉占用它的程序，或换一个端口：{setting}={port + 1} ./lab up …（也可写进 .env）",
    )
