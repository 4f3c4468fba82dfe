"""The latency tracker against the null server: what it writes, how it ends, what it refuses."""

import csv
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest

from inferlab.errors import UsageError
from inferlab.load.null_process import null_server
from inferlab.load.samples import RequestSpec
from inferlab.load.tracker import Plan, Probe, main, report, track
from inferlab.load.tracker_outputs import COLUMNS, CsvLog
from inferlab.repository import root

SCRIPT = [sys.executable, str(root() / "scripts" / "latency_tracker.py")]
PLAN = Plan(RequestSpec("one two", max_tokens=5), interval_s=0.1, duration_s=0.45)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def probes_of(plan: Plan, **script) -> list[Probe]:
    seen: list[Probe] = []
    with null_server(**script) as server:
        found = track(server.endpoint(), plan, seen.append)
    assert found == seen
    return found


def test_one_probe_an_interval_with_the_servers_timing() -> None:
    probes = probes_of(PLAN, ttft_ms=20, itl_ms=5)
    assert [probe.sample.index for probe in probes] == [0, 1, 2, 3, 4]
    gaps = [b.monotonic_s - a.monotonic_s for a, b in pairwise(probes)]
    assert gaps == pytest.approx([0.1] * 4)
    assert abs(probes[-1].wall_s - time.time()) < 10
    best = min(probes, key=lambda probe: probe.sample.e2e_ms).sample
    assert best.ttft_ms == pytest.approx(20, abs=4)
    assert best.tpot_ms == pytest.approx(5, abs=1)


def test_a_slow_service_does_not_slow_the_probes_down() -> None:
    probes = probes_of(PLAN, ttft_ms=400, itl_ms=1)
    assert len(probes) == 5
    assert all(probe.sample.send_delay_ms < 150 for probe in probes)


def test_failed_probes_are_counted_by_kind_and_kept_out_of_the_latencies() -> None:
    plan = Plan(PLAN.spec, 0.02, 0.6)
    probes = probes_of(plan, ttft_ms=5, itl_ms=1, fail_500=0.3, seed=2)
    failed = [probe for probe in probes if not probe.sample.ok]
    text = report(probes)
    assert 0 < len(failed) < len(probes) == 30
    assert f"失败 {len(failed)} 次（http_error {len(failed)}）" in text
    assert "TTFT p50" in text


def test_the_csv_is_continued_and_has_a_row_a_probe(tmp_path: Path) -> None:
    path = tmp_path / "new" / "probe.csv"
    with null_server(ttft_ms=5, itl_ms=1) as server:
        words = ["--url", server.url, "--interval", "0.1", "--duration", "0.15", "--quiet"]
        assert main([*words, "--csv", str(path)]) == 0
        assert main([*words, "--csv", str(path)]) == 0
    found = rows(path)
    assert path.read_text().count("wall_time") == 1
    assert [row["status"] for row in found] == ["ok"] * 4
    assert found[0]["wall_time"].endswith("+00:00")
    assert float(found[0]["e2e_ms"]) > float(found[0]["ttft_ms"]) > 4
    assert found[0]["output_tokens"] == "16"
    stamps = [float(row["monotonic_s"]) for row in found]
    assert stamps == sorted(stamps)


def test_a_file_with_other_content_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="已有别的内容"):
        CsvLog(path)
    assert path.read_text() == "mine\n"
    with pytest.raises(UsageError, match="打不开"):
        CsvLog(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_gives_one_line(capsys) -> None:
    with null_server(ttft_ms=2, itl_ms=1) as server:
        code = main(["--url", server.url, "--duration", "1", "--quiet", "--csv", "/dev/full"])
    assert code == 1
    assert capsys.readouterr().err == (
        "错误: 写入失败（No space left on device） → 检查磁盘空间和权限\n"
    )


@pytest.mark.parametrize(
    ("script", "words", "code", "message"),
    [
        ({}, ["--model", "gpt"], 1, "没有模型 'gpt' → 可用的模型：lab"),
        ({"api_key": "secret"}, ["--api-key", "wrong"], 1, "拒绝了 API key"),
        ({"no_stream": True}, [], 1, "没有流式返回"),
        ({}, ["--url", "127.0.0.1:8000"], 2, "端点地址 '127.0.0.1:8000' 不完整"),
        ({}, ["--url", "http://127.0.0.1:9"], 1, "连不上 http://127.0.0.1:9"),
        ({}, ["--interval", "0"], 2, "--interval 0 不是正数"),
        ({}, ["--max-tokens", "1"], 2, "--max-tokens 1 太少"),
        ({}, ["--prometheus", "99999"], 2, "无法监听 127.0.0.1:99999"),
    ],
)
def test_what_cannot_work_is_one_line(script, words, code: int, message: str, capsys) -> None:
    with null_server(ttft_ms=2, itl_ms=1, **script) as server:
        assert main(["--url", server.url, "--duration", "1", *words]) == code
    said = capsys.readouterr().err
    assert message in said
    assert (said.count("\n"), said.startswith("错误: ")) == (1, True)


def test_the_key_may_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("LAB_API_KEY", "secret")
    with null_server(ttft_ms=2, itl_ms=1, api_key="secret") as server:
        assert main(["--url", server.url, "--duration", "0.1", "--quiet"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_cleanly_and_keeps_what_was_measured(tmp_path: Path, number) -> None:
    path = tmp_path / "probe.csv"
    with null_server(ttft_ms=5, itl_ms=1) as server:
        words = ["--url", server.url, "--interval", "0.05", "--csv", str(path)]
        process = subprocess.Popen([*SCRIPT, *words], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        assert process.stdout is not None
        assert "TTFT" in process.stdout.readline()
        process.send_signal(number)
        out, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert (said.startswith("共 "), said.count("\n"), "Traceback" in out) == (True, 1, False)
    assert {row["status"] for row in rows(path)} == {"ok"}
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_service_that_dies_is_recorded_and_probed_on(tmp_path: Path) -> None:
    path = tmp_path / "probe.csv"
    with null_server(ttft_ms=5, itl_ms=1) as server:
        words = ["--url", server.url, "--interval", "0.1", "--duration", "1", "--csv", str(path)]
        process = subprocess.Popen([*SCRIPT, *words], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
    process.communicate(timeout=20)
    statuses = [row["status"] for row in rows(path)]
    assert process.returncode == 0
    assert len(statuses) == 10
    assert statuses[0] == "ok"
    assert "connect_error" in statuses


def test_prometheus_has_histograms_and_counts_by_status() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server:
        words = ["--url", server.url, "--interval", "0.05", "--prometheus", "0"]
        process = subprocess.Popen([*SCRIPT, *words], stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.PIPE, env={**os.environ})  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stderr.readline().split("：")[1].strip()
        process.stdout.readline()
        with urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert url.startswith("http://127.0.0.1:")
    assert 'inferlab_probe_requests_total{model="lab",status="ok"}' in text
    assert 'inferlab_probe_ttft_seconds_bucket{le="0.001",model="lab"} 0.0' in text
    for name in ("ttft", "tpot", "e2e"):
        assert f'inferlab_probe_{name}_seconds_count{{model="lab"}}' in text
