"""`./lab bench`, `ab` and `records` as the reader meets them, against the null server."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferlab.cli.bench_options import endpoint_from, levels_of, recorded_command
from inferlab.errors import UsageError
from inferlab.load.null_process import NullProcess, null_server
from inferlab.records import store
from inferlab.repository import root

RESULTS = Path(__file__).parents[1] / "records" / "results"
MAIN = [sys.executable, "-c", "from inferlab.cli import main; main()"]
QUICK = ("--requests", "20", "--concurrency", "4", "--output-len", "8", "--repeats", "2")


@pytest.fixture(scope="module")
def server() -> Iterator[NullProcess]:
    with null_server(ttft_ms=5, itl_ms=1) as process:
        yield process


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A root of its own: no running lab, and its own `.lab/records/`."""
    shutil.copy(root() / "versions.toml", tmp_path)
    return tmp_path


def lab(clone: Path, *words: str, wrap: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "INFERLAB_ROOT": str(clone)}
    return subprocess.run([*wrap, *MAIN, *words], capture_output=True, text=True, env=environment)


def test_bench_prints_a_summary_and_writes_a_record(server: NullProcess, clone: Path):
    done = lab(clone, "bench", "--url", server.url, *QUICK, "--slo", "ttft=1s", "--name", "one")
    assert done.returncode == 0, done.stderr
    for word in ("TTFT", "ITL", "TPOT", "E2E", "p99", "只计生成的 token", "goodput", "失败：无"):
        assert word in done.stdout
    record = store.load(next((clone / ".lab" / "records").rglob("one.json")))
    assert record.command.startswith("./lab bench --url http://127.0.0.1:")
    assert len(record.runs) == 2 and not record.partial


def test_a_sweep_ends_with_a_line_a_level(server: NullProcess, clone: Path):
    words = ("--rate", "50,100", "--requests", "10", "--output-len", "4", "--repeats", "1")
    done = lab(clone, "bench", "--url", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert "扫描" in done.stdout and "到达率 100 req/s" in done.stdout


def test_what_is_sent_in_the_ramp_does_not_count(server: NullProcess, clone: Path):
    words = ("--rate", "40", "--arrival", "constant", "--duration", "2", "--ramp", "1.2",
             "--output-len", "4", "--repeats", "1", "--name", "ramped")  # fmt: skip
    done = lab(clone, "bench", "--url", server.url, *words)
    assert done.returncode == 0, done.stderr
    [run] = store.load(next((clone / ".lab" / "records").rglob("ramped.json"))).runs
    assert run.window_s == (pytest.approx(1.2, abs=0.1), pytest.approx(2, abs=0.1))


def test_ab_prints_ratios_and_a_verdict(server: NullProcess, clone: Path):
    with null_server(ttft_ms=30, itl_ms=4) as slow:
        words = ("ab", slow.url, f"url={server.url},model=lab", *QUICK, "--out", str(clone / "r"))
        done = lab(clone, *words)
    assert done.returncode == 0, done.stderr
    assert "B ÷ A" in done.stdout and "结论：" in done.stdout
    record = store.load(next((clone / "r").rglob("ab-*.json")))
    assert len(record.comparisons) == 7


def test_ctrl_c_keeps_what_was_measured(server: NullProcess, clone: Path):
    words = ["bench", "--url", server.url, "--rate", "50", "--duration", "1", "--repeats", "50",
             "--name", "cut", "--output-len", "4"]  # fmt: skip
    environment = {**os.environ, "INFERLAB_ROOT": str(clone)}
    with subprocess.Popen(
        [*MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "第 2/50 次" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "被 Ctrl-C 中断" in rest
    record = store.load(next(clone.rglob("cut.json")))
    assert record.partial == "被 Ctrl-C 中断"
    assert record.one("ttft_ms.p50", rate_per_s=50).mean > 0


def test_a_server_that_dies_is_one_line_and_a_partial_record(clone: Path):
    with null_server(ttft_ms=5, itl_ms=1) as server:
        words = ["bench", "--url", server.url, "--rate", "100", "--duration", "1", "--repeats",
                 "50", "--name", "died", "--output-len", "4"]  # fmt: skip
        environment = {**os.environ, "INFERLAB_ROOT": str(clone)}
        with subprocess.Popen(
            [*MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if "第 2/50 次" in line:
                    break
            server.kill()
            rest, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "没有做完：" in rest and "连不上" in rest
    assert "Traceback" not in errors
    assert "连不上" in store.load(next(clone.rglob("died.json"))).partial


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ({}, ("--model", "nope"), "没有模型 'nope' → 可用的模型：lab"),
        ({"api_key": "k"}, ("--model", "lab"), "拒绝了 API key"),
        ({"no_stream": True}, (), "没有流式返回"),
        ({}, ("--rate", "fast"), "--rate 'fast' 不是正数"),
        ({}, ("--slo", "ttft<1"), "看不懂 SLO"),
        ({}, ("--input-len", "long"), "看不懂长度 'long'"),
        ({}, ("--find-capacity", "--rate", "5"), "--find-capacity 需要 --slo"),
        ({}, ("--dataset", "/nowhere.jsonl"), "读不了 /nowhere.jsonl"),
        ({}, ("--arrival", "bursty"), "--arrival 'bursty' 无效"),
        ({}, ("--rate", "5", "--duration", "2", "--ramp", "2"), "--ramp 2 之后没有剩下"),
        ({}, ("--rate", "5", "--requests", "9", "--ramp", "1"), "--ramp 1 之后没有剩下"),
        ({}, ("--workload", "chat", "--concurrency", "2"), "chat 负载按到达率"),
    ],
)
def test_bad_input_is_one_line(
    script: dict[str, object], words: tuple[str, ...], message: str, clone: Path
):
    with null_server(**script) as server:
        done = lab(clone, "bench", "--url", server.url, *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((clone / ".lab").rglob("*.json"))


@pytest.mark.parametrize(
    ("url", "message"),
    [("http://127.0.0.1:9", "连不上 http://127.0.0.1:9"), ("localhost:8000", "不完整")],
)
def test_a_wrong_address_is_one_line(url: str, message: str, clone: Path):
    done = lab(clone, "bench", "--url", url)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_key_opens_the_server_and_is_not_recorded(clone: Path):
    with null_server(ttft_ms=5, itl_ms=1, api_key="secret-k") as server:
        words = ("--url", server.url, "--api-key", "secret-k", "--model", "lab")
        done = lab(clone, "bench", *words, *QUICK, "--name", "k")
    assert done.returncode == 0, done.stderr
    text = next(clone.rglob("k.json")).read_text()
    assert "secret-k" not in text and "--api-key" in text


def test_a_full_disk_is_one_line_and_the_record_is_kept_elsewhere(server: NullProcess, clone: Path):
    full = clone / "full"
    full.mkdir()
    mount = f'mount -t tmpfs -o size=4k none {full} && exec "$@"'
    wrap = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*wrap, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace to make a full disk in")
    done = lab(clone, "bench", "--url", server.url, *QUICK, "--out", str(full / "x.json"),
               "--name", "full", wrap=wrap)  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    kept = store.load(next((clone / ".lab").rglob("full.json")))
    assert "写不了记录" in kept.partial
    assert kept.runs


def test_records_are_listed_shown_compared_and_described(server: NullProcess, clone: Path):
    for name in ("a", "b"):
        lab(clone, "bench", "--url", server.url, *QUICK, "--name", f"run-{name}")
    listed = lab(clone, "records", "list").stdout
    assert "run-a" in listed and "测量" in listed
    shown = lab(clone, "records", "show", "run-a").stdout
    assert "命令：./lab bench" in shown and "TTFT" in shown
    compared = lab(clone, "records", "compare", "run-a", "run-b").stdout
    assert "ttft_ms.p50" in compared and "B ÷ A" in compared
    missing = lab(clone, "records", "show", "nothing")
    assert missing.returncode == 2 and "没有记录 'nothing'" in missing.stderr
    described = json.loads(lab(clone, "records", "schema").stdout)
    assert described["properties"]["runs"]["description"]


def test_a_record_shows_both_configurations_and_what_cold_starts_chose(clone: Path):
    ab = root() / "results" / "h200" / "chapter05" / "knob_seqs.json"
    shown = lab(clone, "records", "show", str(ab)).stdout
    assert "引擎配置 A（code/chapter05/engine/defaults.yaml）" in shown
    assert "引擎配置 B（code/chapter05/engine/knob-seqs.yaml）：" in shown
    assert "max-num-seqs=288" in shown

    record = store.load(ab)
    kernels = {"k1": {"XBLOCK": 1}, "k2": {"XBLOCK": 2}}
    starts = [{"seconds": 73.2, "kernels": kernels}, {"seconds": 81.9, "kernels": kernels}]
    extra = {"starts": starts, "kernels_chosen_differently": ["k2"]}
    cold = record.model_copy(update={"parameters": record.parameters | extra})
    shown = lab(clone, "records", "show", str(store.write(cold, clone / "cold.json"))).stdout
    assert "空的编译缓存启动：73、82 s；2 个 kernel 按计时挑选，1 个各次不同" in shown


def test_a_foreign_result_is_imported(clone: Path):
    done = lab(
        clone, "records", "import", str(RESULTS / "guidellm.json"), "--device", "NVIDIA H200"
    )
    assert done.returncode == 0, done.stderr
    assert "guidellm 0.8.1" in done.stdout
    assert (clone / ".lab" / "records" / "h200" / "import" / "guidellm.json").is_file()


def test_the_recorded_command_hides_what_is_private():
    words = [
        "bench",
        "--url",
        "https://gpu.example.com/v1",
        "--api-key=k",
        "--out",
        "/home/me/r.json",
    ]
    assert recorded_command(words) == "./lab bench --url 'https://…' '--api-key=…' --out r.json"
    spec = recorded_command(["ab", "url=http://127.0.0.1:8000,key=k", "http://localhost:8001"])
    assert spec == "./lab ab 'url=http://127.0.0.1:8000,key=…' http://localhost:8001"


def test_levels_and_endpoints_are_read_from_text():
    assert [level.rate_per_s for level in levels_of("1,2.5", "", trace=False)] == [1, 2.5]
    assert [level.concurrency for level in levels_of("", "1,4", trace=False)] == [1, 4]
    assert levels_of("", "", trace=True)[0].labels == {"trace": True}
    endpoint = endpoint_from("url=http://127.0.0.1:9,model=m,key=k,api=chat", "completions")
    assert (endpoint.model, endpoint.api, endpoint.api_key) == ("m", "chat", "k")
    with pytest.raises(UsageError, match="不能同时给"):
        levels_of("1", "2", trace=False)


def test_a_capacity_from_runs_that_are_too_short_is_not_called_confirmed(clone: Path):
    with null_server(ttft_ms=5, itl_ms=1, slots=1) as server:
        words = ("--find-capacity", "--rate", "40", "--requests", "20", "--output-len", "4")
        slo = ("--slo", "ttft=500ms", "--slo-share", "0.8", "--repeats", "1")
        done = lab(clone, "bench", "--url", server.url, *words, *slo)
    assert done.returncode == 0, done.stderr
    assert "最高到达率" in done.stdout
    assert "复测 0/1 次确认" in done.stdout and "没有全部确认" in done.stdout
