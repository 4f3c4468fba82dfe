"""Chapter 5's compose files, from the simplest to production, as each Compose here reads them.

Containers are started by chapter 3's tests; here only what differs: each step adds to the last.
"""

from itertools import pairwise

import pytest
import yaml
from compose_lab import CPU_FILES, GPU_FILES, Lab, published

from inferlab.repository import root

pytestmark = pytest.mark.docker
CHAPTER = root() / "code" / "chapter05"
STEPS = ("step1-simplest.yml", "step2-configured.yml", "step3-watched.yml", "docker-compose.yml")


def services(compose: tuple[str, ...], *files: str) -> dict:
    return Lab(compose, files, chapter=CHAPTER).config()["services"]


@pytest.mark.parametrize("file", STEPS)
def test_every_step_is_read_and_stays_on_loopback(compose: tuple[str, ...], file: str) -> None:
    for service in services(compose, file).values():
        assert service["runtime"] == "nvidia"
        assert [address for address, _ in published(service)] == ["127.0.0.1"]


def test_every_step_keeps_what_the_one_before_it_has(compose: tuple[str, ...]) -> None:
    engines = [services(compose, file)["engine"] for file in STEPS]
    for before, after in pairwise(engines):
        assert set(before) < set(after)
        assert after["command"][0] == before["command"][0] == "Qwen/Qwen3-8B"
        assert set(before.get("environment") or ()) <= set(after["environment"])
        assert mount_points(before) <= mount_points(after)


def test_production_holds_what_a_service_needs(compose: tuple[str, ...]) -> None:
    engine = services(compose, *GPU_FILES)["engine"]
    assert "/lab/engine/vllm.yaml" in engine["command"]
    assert engine["environment"]["NVIDIA_VISIBLE_DEVICES"] == "0"
    assert engine["healthcheck"]["test"][-1] == "/lab/engine_health.py"
    assert engine["restart"] == "on-failure:2"
    assert engine["logging"]["options"]["max-size"] == "50m"
    assert {"ulimits", "init", "stop_grace_period", "security_opt", "shm_size"} <= set(engine)


@pytest.mark.parametrize("file", STEPS[:-1])
def test_a_step_without_a_gpu(compose: tuple[str, ...], file: str) -> None:
    engine = services(compose, file, "step-cpu.yml")["engine"]
    assert engine["runtime"] == "runc"
    assert engine["command"] == ["/models/lab-python-8m", "--config", "/lab/engine/vllm-cpu.yaml"]
    assert {"/models", "/lab/engine"} <= mount_points(engine)


def test_cpu_override_needs_no_gpu_and_no_download(compose: tuple[str, ...]) -> None:
    found = services(compose, *CPU_FILES)
    assert [found[name]["runtime"] for name in ("engine", "lab")] == ["runc", "runc"]
    assert found["engine"]["command"][0] == "/models/lab-python-8m"
    # A Docker without CAP_SYS_RESOURCE starts no container that asks for more than it has.
    assert found["engine"]["ulimits"] == {"memlock": 65536, "nofile": 4096}
    assert "/lab/engine/vllm-cpu.yaml" in found["engine"]["command"]


def test_jupyterlab_opens_this_chapters_notebook(compose: tuple[str, ...]) -> None:
    command = " ".join(services(compose, *GPU_FILES)["lab"]["command"])
    assert "notebooks/chapter05_" in command


def test_requests_may_end_before_the_container_is_killed(compose: tuple[str, ...]) -> None:
    """`shutdown-timeout` of the engine's file fits into the grace period."""
    options = yaml.safe_load((CHAPTER / "engine" / "vllm.yaml").read_text(encoding="utf-8"))
    grace = str(services(compose, *GPU_FILES)["engine"]["stop_grace_period"])
    assert options["shutdown-timeout"] < int(grace.removesuffix("s")) == 45


def mount_points(service: dict) -> set[str]:
    """Paths inside the container, from `config` output of either version."""
    return {
        mount.split(":")[1] if isinstance(mount, str) else mount["target"]
        for mount in service.get("volumes") or ()
    }
