"""The doctor's verdicts on machines of several kinds."""

import dataclasses
import socket

import pytest

from inferlab.diagnose import network
from inferlab.diagnose.doctor import (
    Diagnosis,
    Evidence,
    check_compose,
    check_disk,
    check_docker,
    check_driver,
    check_models,
    check_nvidia_runtime,
    check_ports,
    check_python,
    diagnose,
)
from inferlab.engines.machine import Docker, Gpu, Machine
from inferlab.settings import Settings

GIB = 2**30
LAPTOP = Machine(
    system="Linux",
    architecture="x86_64",
    cpu_flags=frozenset({"avx2"}),
    cpu_count=8,
    memory_total_bytes=16 * GIB,
    memory_available_bytes=10 * GIB,
    disk_free_bytes=100 * 10**9,
    python_version=(3, 12),
)
DOCKER = Docker("29.0.1", "29.0.1", "", ("docker", "compose"), "2.40.3", nvidia_runtime=True)
SERVER = dataclasses.replace(
    LAPTOP, gpus=(Gpu("NVIDIA H200", 143_771 * 2**20),), driver="580.95.05", docker=DOCKER
)


def evidence(machine: Machine = LAPTOP, **changes) -> Evidence:
    facts = {
        "machine": machine,
        "python": (3, 12, 3),
        "sites": {"https://huggingface.co": None},
        "ports": {"LAB_API_PORT": (8000, None), "LAB_JUPYTER_PORT": (8888, None)},
    }
    return Evidence(**{**facts, **changes})


def statuses(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: check.status for check in diagnosis.checks}


def test_a_gpu_server_is_ready_for_everything():
    found = diagnose(evidence(SERVER))
    assert set(statuses(found).values()) == {"OK"}
    assert (found.gpu_ready, found.cpu_ready) == (True, True)
    assert found.summary() == "11 OK，0 WARN，0 FAIL：可以用 GPU 或 CPU 运行实验"


def test_a_laptop_without_gpu_and_docker_can_still_run_the_cpu_labs():
    found = diagnose(evidence())
    assert found.usable
    assert not found.gpu_ready
    assert {name for name, status in statuses(found).items() if status == "WARN"} == {
        "GPU",
        "驱动",
        "Docker",
        "Compose",
        "NVIDIA 容器运行时",
    }


def test_a_mac_needs_docker():
    mac = dataclasses.replace(LAPTOP, system="Darwin", architecture="arm64", cpu_flags=frozenset())
    assert not diagnose(evidence(mac)).usable
    assert diagnose(evidence(dataclasses.replace(mac, docker=DOCKER))).cpu_ready


def test_every_line_that_is_not_ok_says_what_to_do():
    bare = dataclasses.replace(
        LAPTOP, disk_free_bytes=5 * 10**9, memory_available_bytes=GIB, cpu_flags=frozenset()
    )
    found = diagnose(
        evidence(
            bare,
            python=(3, 9, 2),
            sites={"https://huggingface.co": "timed out"},
            ports={"LAB_API_PORT": (8000, "nginx (pid 7)")},
        )
    )
    assert not found.usable
    assert all(check.remedy for check in found.checks if check.status != "OK")
    assert {"Python", "磁盘", "内存"} <= {c.name for c in found.checks if c.status == "FAIL"}


def test_an_old_driver_fails_with_both_versions():
    check = check_driver(evidence(dataclasses.replace(SERVER, driver="535.161.08")))
    assert check.status == "FAIL"
    assert "535.161.08" in check.found
    assert "R580" in check.remedy


def test_the_book_asks_for_python_3_8_and_the_repository_for_more():
    check = check_python(evidence(python=(3, 8, 10)))
    assert (check.status, check.found) == ("FAIL", "3.8.10")
    assert "3.11" in check.remedy


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(60e9, "OK"), (50e9, "OK"), (20e9, "WARN"), (5e9, "FAIL")]
)
def test_the_book_asks_for_50_gb_of_disk(free_bytes: float, status: str):
    machine = dataclasses.replace(LAPTOP, disk_free_bytes=int(free_bytes))
    assert check_disk(evidence(machine)).status == status


@pytest.mark.parametrize(
    ("version", "status"), [("2.40.3", "OK"), ("1.29.2", "OK"), ("1.25.0", "FAIL")]
)
def test_compose_v2_and_1_29_both_do(version: str, status: str):
    docker = dataclasses.replace(DOCKER, compose_version=version)
    machine = dataclasses.replace(LAPTOP, docker=docker)
    assert check_compose(evidence(machine)).status == status


def test_a_daemon_that_does_not_answer_is_not_a_missing_docker():
    down = dataclasses.replace(LAPTOP, docker=dataclasses.replace(DOCKER, daemon=""))
    assert check_docker(evidence(down)).found == "守护进程没有响应"
    assert check_docker(evidence()).found == "没有安装"


def test_a_gpu_that_containers_cannot_see_names_the_toolkit():
    docker = dataclasses.replace(DOCKER, nvidia_runtime=False)
    check = check_nvidia_runtime(evidence(dataclasses.replace(SERVER, docker=docker)))
    assert check.status == "WARN"
    assert "nvidia-container-toolkit" in check.remedy


def test_one_reachable_site_is_enough():
    sites = {"https://huggingface.co": "timed out", "https://www.modelscope.cn": None}
    assert check_models(evidence(sites=sites)).found == "可以访问 https://www.modelscope.cn"


def test_a_taken_port_names_its_holder_and_setting():
    check = check_ports(evidence(ports={"LAB_API_PORT": (8000, "nginx (pid 7)")}))
    assert check.found == "8000 被 nginx (pid 7) 占用"
    assert "LAB_API_PORT" in check.remedy


def test_a_configured_mirror_is_asked_in_place_of_the_official_sites():
    with socket.create_server(("127.0.0.1", 0)) as server:
        mirror = f"http://127.0.0.1:{server.getsockname()[1]}"
    found = network.reachability(Settings(hf_endpoint=mirror))
    assert list(found) == [mirror]
    assert "refused" in str(found[mirror])
