"""The command line as the reader meets it: help, and errors of one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inferlab.repository import root


@pytest.fixture
def quiet_clone(tmp_path: Path) -> Path:
    """A root of its own, so that a lab which runs here is not seen."""
    shutil.copy(root() / "versions.toml", tmp_path)
    shutil.copytree(root() / "code", tmp_path / "code", ignore=shutil.ignore_patterns(".env"))
    return tmp_path


def inferlab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from inferlab.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_help_names_the_commands():
    done = inferlab("--help")
    assert done.returncode == 0
    for command in ("up", "down", "status", "logs", "test", "doctor"):
        assert f" {command} " in done.stdout


def test_help_loads_none_of_the_heavy_libraries():
    code = (
        "import sys; from inferlab.cli.app import app;"
        "print(sorted({'numpy', 'scipy', 'matplotlib', 'aiohttp', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("up", "chapter99"), {}, "没有名为 'chapter99' 的实验"),
        (("up", "chapter03", "--engine", "tpu"), {}, "--engine 'tpu' 无效"),
        (("up", "chapter03", "--model", "/nowhere/model"), {}, "模型目录 /nowhere/model 不存在"),
        (("up", "chapter03"), {"LAB_API_PORT": "http"}, "LAB_API_PORT='http'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], environment: dict[str, str], message: str, quiet_clone: Path
):
    done = inferlab(*arguments, **environment, INFERLAB_ROOT=str(quiet_clone))
    assert done.returncode == 2
    assert done.stderr.startswith("错误: ")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_goodput_is_derived_again_from_a_records_runs(tmp_path: Path):
    known = root() / "results" / "h200" / "chapter07" / "pd" / "goodput_chat.json"
    copy = tmp_path / known.name
    before = json.loads(known.read_text(encoding="utf-8"))
    stripped = before | {"figures": [], "comparisons": []}
    copy.write_text(json.dumps(stripped), encoding="utf-8")
    done = inferlab("records", "rederive", str(copy))
    assert done.returncode == 0, done.stderr
    after = json.loads(copy.read_text(encoding="utf-8"))
    assert after["comparisons"] == before["comparisons"] and after["runs"] == before["runs"]
    assert {figure["name"] for figure in after["figures"]} > {"capacity_req_per_s", "ttft_ms.p99"}
    assert after["parameters"]["rederived"]["at"]


@pytest.mark.parametrize(
    ("name", "rounds", "message"),
    [
        ("chapter05/graphs", 5, "不是 goodput_ab 的记录"),
        ("chapter05/goodput_fp8_ab", 1, "不足 2 轮，没有改动"),
    ],
)
def test_what_cannot_be_derived_again_stays_as_it_is(
    name: str, rounds: int, message: str, tmp_path: Path
):
    known = json.loads((root() / "results" / "h200" / f"{name}.json").read_text(encoding="utf-8"))
    runs = [run for run in known["runs"] if run["repeat"] < rounds]
    copy = tmp_path / "known.json"
    copy.write_text(json.dumps(known | {"runs": runs}), encoding="utf-8")
    before = copy.read_bytes()
    done = inferlab("records", "rederive", str(copy))
    assert done.returncode and message in done.stderr
    assert copy.read_bytes() == before
