"""Ports of this machine: whether one is free, who holds it, and one that nobody else will take."""

import contextlib
import random
import socket
from pathlib import Path

import psutil

from inferlab.errors import LabError

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LINUX_DEFAULT = (32768, 60999)
_LOWEST = 20000
_ENOUGH = 1000  # fewer ports than this on one side of the ephemeral range are no choice

_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now; this process gives each only once.

    An engine binds its ports half a minute after it was told them. They lie outside the range from
    which the kernel numbers outgoing connections, so that none of those takes one in between.

    Raises:
        LabError: all are taken.
    """
    candidates = sorted(set(_outside_ephemeral(*_ephemeral())) - _given)
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        if is_free(port):
            _given.add(port)
            return port
    raise LabError("本机没有空闲的 TCP 端口", remedy="停掉占用端口的程序（ss -ltn 可见）")


def _outside_ephemeral(low: int, high: int) -> range:
    """The ports below the kernel's range, else those above it, else (it covers all) any."""
    sides = (range(_LOWEST, low), range(high + 1, 65536))
    return next((side for side in sides if len(side) >= _ENOUGH), range(_LOWEST, 65536))


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = _EPHEMERAL.read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _LINUX_DEFAULT


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
