"""What `./lab up` picks on which machine."""

import dataclasses
from pathlib import Path

import pytest
from machines import (
    DAEMON_DOWN,
    DOCKER,
    GIB,
    H100,
    LAPTOP,
    LAPTOP_DOCKER,
    MAC_DOCKER,
    OLD_DRIVER,
    SERVER,
    SERVER_DOCKER,
    machine,
)

from inferlab.engines.choose import (
    Choice,
    LabDefaults,
    Wish,
    choose,
    require_memory,
)
from inferlab.engines.layout import Layout
from inferlab.engines.machine import Gpu, Machine, probe_docker
from inferlab.errors import LabError, UsageError
from inferlab.settings import Settings


@pytest.fixture
def defaults(tmp_path: Path) -> LabDefaults:
    embedded = tmp_path / "lab-python-8m"
    embedded.mkdir()
    (embedded / "config.json").write_text("{}")
    table = dataclasses.replace(LabDefaults.of("chapter03"), cpu=embedded)
    return table


ANYTHING = Wish()


def pick(on: Machine, defaults: LabDefaults, wish: Wish = ANYTHING, **settings: str) -> Choice:
    return choose(on, Settings(**settings), wish, defaults)


@pytest.mark.parametrize(
    ("on", "engine", "launcher"),
    [
        (SERVER_DOCKER, "gpu", "compose"),
        (SERVER, "gpu", "native"),
        (dataclasses.replace(SERVER, docker=DOCKER), "gpu", "native"),
        (LAPTOP, "cpu", "native"),
        (LAPTOP_DOCKER, "cpu", "native"),
        (MAC_DOCKER, "cpu", "compose"),
        (OLD_DRIVER, "cpu", "native"),
        (machine(cpu_flags=frozenset(), docker=DOCKER), "cpu", "compose"),
    ],
)
def test_the_machine_decides(on: Machine, engine: str, launcher: str, defaults: LabDefaults):
    choice = pick(on, defaults)
    assert (choice.engine, choice.launcher) == (engine, launcher)


@pytest.mark.parametrize(
    ("on", "wish", "engine", "launcher"),
    [
        (SERVER_DOCKER, Wish(engine="cpu"), "cpu", "native"),
        (SERVER_DOCKER, Wish(docker=False), "gpu", "native"),
        (SERVER_DOCKER, Wish(engine="cpu", docker=True), "cpu", "compose"),
        (LAPTOP_DOCKER, Wish(docker=True), "cpu", "compose"),
        (OLD_DRIVER, Wish(engine="gpu"), "gpu", "compose"),
    ],
)
def test_the_reader_may_decide_otherwise(
    on: Machine, wish: Wish, engine: str, launcher: str, defaults: LabDefaults
):
    choice = pick(on, defaults, wish)
    assert (choice.engine, choice.launcher) == (engine, launcher)


def test_the_reason_names_what_was_found(defaults: LabDefaults):
    assert "H100" in pick(SERVER_DOCKER, defaults).reason
    assert "没有 NVIDIA GPU" in pick(LAPTOP, defaults).reason
    assert "535.161.08 低于 R580" in pick(OLD_DRIVER, defaults).reason
    assert "Darwin arm64" in pick(MAC_DOCKER, defaults).reason


@pytest.mark.parametrize(
    ("on", "wish", "message"),
    [
        (LAPTOP, Wish(engine="gpu"), "没有找到 NVIDIA GPU"),
        (LAPTOP, Wish(docker=True), "没有安装 Docker"),
        (machine(docker=DAEMON_DOWN), Wish(docker=True), "permission denied"),
        (dataclasses.replace(SERVER, docker=DOCKER), Wish(docker=True), "没有 NVIDIA 运行时"),
        (MAC_DOCKER, Wish(docker=False), "没有现成的 vLLM CPU 安装包"),
        (machine(system="Darwin", architecture="arm64"), Wish(), "没有安装 Docker"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    on: Machine, wish: Wish, message: str, defaults: LabDefaults
):
    with pytest.raises(LabError, match=message) as caught:
        pick(on, defaults, wish)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("gpu_memory_mib", "model"),
    [
        (143_771, "Qwen/Qwen3-8B"),  # H200
        (40_960, "Qwen/Qwen3-8B"),  # A100 40GB
        (24_564, "Qwen/Qwen3-4B"),  # RTX 4090
        (15_360, "Qwen/Qwen3-1.7B"),  # T4
        (12_282, "Qwen/Qwen3-1.7B"),  # RTX 4070
        (8_188, "Qwen/Qwen3-0.6B"),  # RTX 4060
    ],
)
def test_the_default_model_follows_the_memory_that_the_driver_reports(
    gpu_memory_mib: int, model: str, defaults: LabDefaults
):
    gpu = Gpu("a GPU", gpu_memory_mib * 2**20)
    assert pick(dataclasses.replace(SERVER, gpus=(gpu,)), defaults).model == model


def test_the_model_on_a_gpu_is_the_wish_then_the_setting_then_the_table(defaults: LabDefaults):
    wish = Wish(model="Qwen/Qwen3-14B")
    assert pick(SERVER, defaults, wish, model="Qwen/Qwen3-32B").model == "Qwen/Qwen3-14B"
    assert pick(SERVER, defaults, model="Qwen/Qwen3-32B").model == "Qwen/Qwen3-32B"
    assert pick(SERVER, defaults).model == "Qwen/Qwen3-8B"


def test_a_cpu_keeps_the_embedded_model_unless_told(defaults: LabDefaults, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert pick(LAPTOP, defaults, model="Qwen/Qwen3-8B").model == str(defaults.cpu)
    assert pick(LAPTOP, defaults, model=str(tmp_path)).model == str(tmp_path)
    assert pick(LAPTOP, defaults, Wish(model="Qwen/Qwen3-0.6B")).model == "Qwen/Qwen3-0.6B"


def test_a_model_folder_must_exist_and_hold_a_model(defaults: LabDefaults, tmp_path: Path):
    with pytest.raises(UsageError, match="不存在"):
        pick(LAPTOP, defaults, Wish(model=str(tmp_path / "missing")))
    with pytest.raises(UsageError, match=r"没有 config\.json"):
        pick(LAPTOP, defaults, Wish(model=str(tmp_path)))


def test_an_unknown_engine_is_wrong_use(defaults: LabDefaults):
    with pytest.raises(UsageError, match="tpu"):
        pick(SERVER, defaults, Wish(engine="tpu"))


def test_too_little_memory_is_said_for_the_cpu_only(defaults: LabDefaults):
    small = machine(memory_available_bytes=2 * GIB)
    with pytest.raises(LabError, match=r"2\.0 GiB"):
        require_memory(small, pick(small, defaults))
    small_server = dataclasses.replace(small, gpus=(H100,), driver="580.1")
    assert require_memory(small_server, pick(small_server, defaults)) is None


NO_LIBNUMA = ("libnuma.so.1",)


APART = Layout("pd", {"prefill": (0,), "decode": (1,)})
TOGETHER = Layout("pd_one_gpu", {"prefill": (0,), "decode": (0,)}, compose="one.yml")
TWO_GPUS = dataclasses.replace(SERVER, gpus=(H100, H100))


def test_too_few_gpus_and_too_little_memory_for_several_workers_are_said(defaults: LabDefaults):
    apart = dataclasses.replace(defaults, layouts=(APART,))
    with pytest.raises(LabError, match="要 2 块 GPU，这里有 1 块"):
        pick(SERVER, apart)
    on_cpu = pick(LAPTOP, apart)
    assert on_cpu.layout == APART
    with pytest.raises(LabError, match="可用内存"):
        require_memory(LAPTOP, on_cpu, engines=3)
    require_memory(LAPTOP, on_cpu, engines=2)


def test_workers_share_a_gpu_where_there_is_one_and_its_memory_too(defaults: LabDefaults):
    either = dataclasses.replace(defaults, layouts=(APART, TOGETHER))
    assert pick(SERVER, defaults).layout is None
    assert pick(TWO_GPUS, either).layout == APART
    assert "共用" not in pick(TWO_GPUS, either).reason
    found = pick(SERVER, either)
    assert found.layout == TOGETHER
    assert "分开放要 2 块 GPU，这里有 1 块，2 个引擎共用一块" in found.reason
    small = dataclasses.replace(SERVER, gpus=(Gpu("a GPU", 24 * GIB),))
    assert pick(small, defaults).model == "Qwen/Qwen3-4B"
    assert pick(small, either).model == "Qwen/Qwen3-1.7B"


def test_a_missing_system_library_is_named_with_the_package_that_has_it(defaults: LabDefaults):
    with pytest.raises(LabError, match=r"libnuma\.so\.1.*apt-get install libnuma1"):
        pick(machine(missing_libraries=NO_LIBNUMA), defaults)


def test_docker_needs_no_system_library(defaults: LabDefaults):
    choice = pick(machine(missing_libraries=NO_LIBNUMA, docker=DOCKER), defaults)
    assert (choice.engine, choice.launcher) == ("cpu", "compose")
    assert "libnuma" in choice.reason


def test_a_library_is_no_remedy_where_the_build_does_not_exist(defaults: LabDefaults):
    arm = machine(architecture="aarch64", missing_libraries=NO_LIBNUMA)
    with pytest.raises(LabError, match="Docker"):
        pick(arm, defaults)


def test_a_docker_without_its_daemon_is_described_and_not_a_crash(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    found = probe_docker()
    assert not found.usable and not found.nvidia_runtime
    assert bool(found.client) == bool(found.problem)
