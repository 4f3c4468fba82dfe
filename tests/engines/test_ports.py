"""A taken port is named, with its holder and the setting to change."""

import os
import socket
from pathlib import Path

import pytest

from inferlab.engines import ports
from inferlab.engines.ports import free_port, holder, is_free, require_free
from inferlab.errors import LabError


def test_a_taken_port_is_named_with_its_holder_and_the_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert f"pid {os.getpid()}" in holder(port)
        with pytest.raises(LabError, match=f"端口 {port} 已被占用") as caught:
            require_free(port, "LAB_API_PORT")
        assert f"LAB_API_PORT={port + 1}" in caught.value.remedy
    assert is_free(port)
    assert holder(port) == ""


@pytest.mark.parametrize(("kernels", "allowed"), [
    ("32768\t60999", range(20000, 32768)), ("1024 40000", range(40001, 65536)),
    ("1024 65535", range(20000, 65536)), (None, range(20000, 32768)),
])  # fmt: skip
def test_no_outgoing_connection_can_take_a_given_port(
    kernels: str | None, allowed: range, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    if kernels:
        (tmp_path / "range").write_text(kernels, encoding="ascii")
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == 50
    assert set(given) <= set(allowed)


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", free_port())) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "_outside_ephemeral", lambda low, high: range(taken, taken + 1))
        monkeypatch.setattr(ports, "_given", set())
        with pytest.raises(LabError, match="没有空闲的 TCP 端口"):
            free_port()
    assert free_port() == taken
