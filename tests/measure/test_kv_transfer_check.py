"""By what KV moved: UCX's own tables, as vLLM 0.32.0 with nixl 1.5.1 wrote them on 2026-11-23."""

from pathlib import Path

import pytest

from inferlab.load.null_process import null_server
from inferlab.measure.kv_transfer_check import Transport, main, transports

STAMP = "[1795412121.153988] [vm:26838:0]  "
MESSAGES = f"""
{STAMP} | 3d4fd519-917c-4669-8ac5-38334ae intra-node cfg#1     |
{STAMP} | active message by ucp_am_send*(egr) from host memory |
{STAMP} |   0..626 | short              | tcp/lo                                 |
{STAMP} +----------+--------------------+----------------------------------------+
"""
SHARED_MEMORY = f"""
{STAMP} | remote memory read by ucp_get*(multi) into host memory from host |
{STAMP} +--------+-------------+-------------------------------------------+
{STAMP} | Range  | Description |                  Config                   |
{STAMP} +--------+-------------+-------------------------------------------+
{STAMP} | 0..inf | zero-copy   | cma/memory                                |
{STAMP} +--------+-------------+-------------------------------------------+
"""
SOCKETS = SHARED_MEMORY.replace("zero-copy  ", "software emulation").replace("cma/memory", "tcp/lo")


def test_only_the_tables_of_remote_reads_count() -> None:
    assert transports(MESSAGES) == []
    assert transports(MESSAGES + SHARED_MEMORY + MESSAGES) == [Transport("zero-copy", "cma/memory")]
    assert not transports(SHARED_MEMORY)[0].fallback


def test_sockets_are_a_fallback() -> None:
    found = transports(SHARED_MEMORY + SOCKETS + SOCKETS)
    assert [each.what for each in found] == ["cma/memory", "tcp/lo"]
    assert [each.fallback for each in found] == [False, True]


def test_a_server_that_is_no_router_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with null_server(ttft_ms=1, itl_ms=1) as server:
        assert main(["--url", server.url]) == 1
    assert "不是 PD 的路由" in capsys.readouterr().err


def test_wrong_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--requests", "0"]) == 2
    assert "至少为 1" in capsys.readouterr().err
