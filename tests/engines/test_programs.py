"""Which engine reads a file, how each is called, and whose offline bundle it runs from."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from inferlab.engines import cuda_toolkit, environments, native
from inferlab.engines.choose import Choice
from inferlab.engines.native import SGLANG, VLLM, program_of
from inferlab.engines.startup_log import StartupReport
from inferlab.engines.temporary import Recipe
from inferlab.engines.turns import Mode, Turns
from inferlab.errors import LabError
from inferlab.repository import lab_dir
from inferlab.settings import Settings

ENGINES = lab_dir("chapter05") / "engine"
CHOICE = Choice("gpu", "native", "some/model", reason="", otherwise="")


def recipe(name: str) -> Recipe:
    return Recipe(name, "gpu", Path("python3"), ENGINES / f"{name}.yaml", Path("m"), Path("log"))


def test_each_program_gets_its_own_words():
    config = ENGINES / "sglang.yaml"
    assert (program_of(config), program_of(ENGINES / "defaults.yaml")) == (SGLANG, VLLM)
    words = native.command(Path("python3"), config, "some/model", 8123)
    assert words[words.index("-m") + 1] == "sglang.launch_server"
    assert words[words.index("--model-path") + 1] == "some/model"
    assert words[words.index("--config") + 1] == str(config)
    assert "--model" not in words and words[-1] == "8123"
    assert SGLANG.environment("gpu") in environments.ENVIRONMENTS


def toolkit(folder: Path) -> Path:
    for file in ("bin/nvcc", "lib64/libcudart.so"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).touch(mode=0o755)
    return folder


def test_each_program_runs_from_its_own_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path)))
    monkeypatch.setenv("LAB_BUNDLE", "/one")
    with pytest.raises(LabError, match="没有 sglang 的") as refused:
        environments.ensure("sglang-cuda", Settings())
    assert "LAB_BUNDLE_SGLANG" in refused.value.remedy
    monkeypatch.setenv("LAB_BUNDLE_SGLANG", "/two")
    assert environments.ensure("sglang-cuda", Settings()).is_file()
    for name, packed in (("sglang", "/two"), ("defaults", "/one")):
        config = ENGINES / f"{name}.yaml"
        found = native.environment(CHOICE, Settings(), config)
        assert found["PYTHONPATH"].split(os.pathsep) == [packed, str(ENGINES)]
        assert f"{packed}/bin" in found["PATH"].split(os.pathsep)


def test_the_second_bundle_counts_beside_the_first_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LAB_BUNDLE", raising=False)
    monkeypatch.setenv("LAB_BUNDLE_SGLANG", "/two")
    assert environments.bundle("sglang") is None
    found = native.environment(CHOICE, Settings(), ENGINES / "sglang.yaml")
    assert found["PYTHONPATH"] == str(ENGINES)


def test_what_compiles_kernels_is_told_the_toolkit_behind_a_wrapper(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole = toolkit(tmp_path / "cuda")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.touch(mode=0o755)
    monkeypatch.setattr(cuda_toolkit, "USUAL", whole)
    monkeypatch.setenv("PATH", str(wrapper.parent))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    for name, told in (("sglang", str(whole)), ("defaults", None)):
        found = native.environment(CHOICE, Settings(), ENGINES / f"{name}.yaml")
        assert found.get("CUDA_HOME") == told


def test_without_a_toolkit_what_compiles_kernels_is_not_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(LabError, match="没有找到 CUDA toolkit"):
        environments.ensure("sglang-cuda", Settings())


def test_an_environment_that_another_process_makes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "vllm-cpu.txt").write_text("torch==2.13.0+cpu\n")
    monkeypatch.setattr(environments, "root", lambda: tmp_path)
    monkeypatch.delenv("LAB_BUNDLE", raising=False)
    made, said = [], []

    def make(name: str, settings: Settings, say: environments.Say) -> None:
        made.append(name)
        time.sleep(0.3)
        (tmp_path / ".engines" / name).mkdir()
        stamp = tmp_path / ".engines" / name / ".lab-stamp"
        stamp.write_text(environments._wanted(name), encoding="utf-8")

    monkeypatch.setattr(environments, "_make", make)
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(environments.ensure, "vllm-cpu", Settings(), said.append) for _ in range(2)
        ]
        paths = {each.result() for each in both}
    assert paths == {tmp_path / ".engines" / "vllm-cpu" / "bin" / "python"}
    assert made == ["vllm-cpu"]
    assert said == ["另一个 ./lab 正在安装 .engines/vllm-cpu，等它装完 …"]


class Paper:
    """A recipe that starts nothing and writes down what it was asked for."""

    def __init__(self, name: str, device: str, done: list[str], fails: bool = False) -> None:
        self.name, self.device, self.done, self.fails = name, device, done, fails
        self.config, self.log = ENGINES / "defaults.yaml", ENGINES / "none.log"
        self.alive, self.url, self.seconds = True, "http://127.0.0.1:9", 1.0
        self.recipe = self

    def launch(self) -> "Paper":
        self.done.append(f"{self.name} launched")
        return self

    def wait(self, limit_s: float) -> "Paper":
        if self.fails:
            raise LabError("没有启动")
        self.done.append(f"{self.name} answers")
        return self

    def stop(self) -> None:
        self.done.append(f"{self.name} stopped")

    def startup(self) -> StartupReport:
        return StartupReport()


def paper_turns(mode: Mode, *papers: Paper) -> Turns:
    recipes = {each.name: cast(Recipe, each) for each in papers}
    return Turns(recipes, mode, lambda line: None)


def test_where_a_second_engine_would_end_the_first_it_is_not_started_ahead():
    done: list[str] = []
    paper_turns("restart", Paper("a", "gpu", done), Paper("b", "gpu", done)).start_all()
    assert done == ["a launched", "a answers"]


@pytest.mark.parametrize(("device", "order"), [
    ("gpu", ["a launched", "b launched", "a answers", "b answers"]),
    ("cpu", ["a launched", "a answers", "b launched", "b answers"]),
])  # fmt: skip
def test_on_gpus_those_that_stay_up_are_launched_at_once(device: str, order: list[str]):
    done: list[str] = []
    turns = paper_turns("resident", Paper("a", device, done), Paper("b", device, done))
    turns.start_all()
    assert done == order
    turns.start_all()
    assert (done, turns.active) == (order, "b"), "what is up is not started again"
    turns.close()
    assert done[4:] == ["a stopped", "b stopped"]


def test_where_one_of_those_launched_at_once_fails_none_is_left():
    done: list[str] = []
    turns = paper_turns("resident", Paper("a", "gpu", done, fails=True), Paper("b", "gpu", done))
    with turns, pytest.raises(LabError, match="没有启动"):
        turns.start_all()
    assert done == ["a launched", "b launched", "a stopped", "b stopped"]


@pytest.mark.parametrize(
    ("names", "mode"),
    [("defaults", "alone"), ("defaults latency", "sleep"), ("defaults sglang", "restart")],
)
def test_only_vllm_sleeps(names: str, mode: str):
    turns = Turns.of([recipe(name) for name in names.split()], print)
    assert turns.mode == mode
    assert turns.interleaved == (mode != "restart")
    slept = [name for name, each in turns.recipes.items() if "enable-sleep-mode" in each.flags]
    assert slept == (names.split() if mode == "sleep" else [])


@pytest.mark.parametrize(("usable", "physical", "quota", "threads"), [
    (1, 1, None, "1"), (2, 2, None, "2"), (4, 2, None, "2"), (16, 8, None, "7"),
    (2, 8, None, "2"), (8, None, None, "7"), (64, 32, 4.0, "3"), (8, 8, 0.5, "1"),
])  # fmt: skip
def test_a_cpu_engine_computes_on_the_cores_that_it_may_use_but_one(
    usable: int,
    physical: int | None,
    quota: float | None,
    threads: str,
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("OMP_NUM_THREADS", "KMP_BLOCKTIME", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.delenv(name, raising=False)
    cpu = SimpleNamespace(usable_cores=usable, physical_cores=physical, quota_cores=quota)
    monkeypatch.setattr(native, "describe_cpu", lambda: cpu)
    choice = replace(CHOICE, engine="cpu")
    found = native.environment(choice, Settings(), ENGINES / "defaults-cpu.yaml")
    assert found["OMP_NUM_THREADS"] == threads
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = native.environment(choice, Settings(), ENGINES / "defaults-cpu.yaml")
    assert found["OMP_NUM_THREADS"] == "3"


def test_a_gpu_engine_keeps_vllms_own_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    found = native.environment(CHOICE, Settings(), ENGINES / "defaults.yaml")
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in found
