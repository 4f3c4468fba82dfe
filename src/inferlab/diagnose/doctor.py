"""The pre-reading check of chapter 2 §2.4.2: what is here, what is missing, what to do about it.

Each check is a function of facts that were read before (`Evidence`), so it can be tried without the
machine; `gather()` reads them.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from inferlab.diagnose import network
from inferlab.engines import lifecycle
from inferlab.engines.choose import (
    CPU_MEMORY_BYTES,
    GIB,
    driver_branch,
    native_cpu_problem,
    native_cpu_remedy,
)
from inferlab.engines.machine import Machine
from inferlab.engines.ports import holder, is_free
from inferlab.repository import versions
from inferlab.settings import Settings

Status = Literal["OK", "WARN", "FAIL"]

DISK_BYTES = 50e9  # chapter 2 §2.4.2
BOOK_GPUS = "A100 / H100"


@dataclass(frozen=True)
class Check:
    """One line of the report; `remedy` is empty when nothing needs to be done."""

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Evidence:
    """What the checks judge.

    Attributes:
        sites: model site → None when it answered, else why not; in the order of preference.
        ports: setting → (port, who holds it; None when it is free or held by this clone's lab).
        nvidia_smi: whether the command exists.
    """

    machine: Machine
    python: tuple[int, int, int]
    sites: dict[str, str | None]
    ports: dict[str, tuple[int, str | None]]
    nvidia_smi: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and which ways to run the labs are open."""

    checks: tuple[Check, ...]
    gpu_ready: bool
    cpu_ready: bool

    @property
    def usable(self) -> bool:
        """Whether the labs can run at all."""
        return self.gpu_ready or self.cpu_ready

    def summary(self) -> str:
        """The closing line, in Chinese."""
        count = {s: sum(c.status == s for c in self.checks) for s in ("OK", "WARN", "FAIL")}
        ways = [name for name, ready in (("GPU", self.gpu_ready), ("CPU", self.cpu_ready)) if ready]
        verdict = f"可以用 {' 或 '.join(ways)} 运行实验" if ways else "GPU 和 CPU 两条路都走不通"
        return f"{count['OK']} OK，{count['WARN']} WARN，{count['FAIL']} FAIL：{verdict}"


def gather(settings: Settings) -> Evidence:
    """Read this machine; asks each model site once, in parallel, for at most a few seconds."""
    import sys

    with ThreadPoolExecutor() as pool:
        sites = pool.submit(network.reachability, settings)
        machine = Machine.probe()
        ports = {
            "LAB_API_PORT": _port_state(settings.api_port),
            "LAB_JUPYTER_PORT": _port_state(settings.jupyter_port),
        }
        return Evidence(
            machine=machine,
            python=sys.version_info[:3],
            sites=sites.result(),
            ports=ports,
            nvidia_smi=shutil.which("nvidia-smi") is not None,
        )


def diagnose(evidence: Evidence) -> Diagnosis:
    """Judge the evidence."""
    checks = tuple(check(evidence) for check in CHECKS)
    machine, docker = evidence.machine, evidence.machine.docker
    python_ok = evidence.python >= (3, 11)
    driver_ok = driver_branch(machine.driver) >= _needed_driver()
    native_gpu = machine.system == "Linux" and machine.architecture == "x86_64"
    in_docker = docker.usable and docker.nvidia_runtime
    gpu_ready = python_ok and bool(machine.gpus) and driver_ok and (native_gpu or in_docker)
    memory_ok = machine.memory_available_bytes >= CPU_MEMORY_BYTES
    cpu_ready = python_ok and memory_ok and (not native_cpu_problem(machine) or docker.usable)
    return Diagnosis(checks, gpu_ready, cpu_ready)


def check_gpu(evidence: Evidence) -> Check:
    """Present, and how large."""
    gpus = evidence.machine.gpus
    if gpus:
        shown = "，".join(f"{gpu.name}（{gpu.memory_bytes / GIB:.0f} GiB）" for gpu in gpus)
        return Check("GPU", "OK", shown)
    hint = (
        "驱动没有工作：运行 nvidia-smi 看原因"
        if evidence.nvidia_smi
        else "没有 GPU 也能做 CPU 实验"
    )
    return Check("GPU", "WARN", "没有可用的 NVIDIA GPU", f"{hint}；书中推荐 {BOOK_GPUS}")


def check_driver(evidence: Evidence) -> Check:
    """Driver branch against the pinned engine's CUDA."""
    driver, needed = evidence.machine.driver, _needed_driver()
    toolkit = versions()["cuda"]["toolkit"]
    if not evidence.machine.gpus:
        return Check("驱动", "WARN", "没有 NVIDIA 驱动", f"有 GPU 时装 R{needed} 或更新的驱动")
    if driver_branch(driver) >= needed:
        return Check("驱动", "OK", f"{driver}（引擎需要 R{needed}，CUDA {toolkit}）")
    return Check(
        "驱动", "FAIL", f"{driver or '未知'}（引擎需要 R{needed}）", f"升级到 R{needed} 或更新"
    )


def check_docker(evidence: Evidence) -> Check:
    """Client and daemon."""
    docker = evidence.machine.docker
    if docker.daemon:
        return Check("Docker", "OK", docker.daemon)
    if docker.client:
        return Check(
            "Docker", "WARN", "守护进程没有响应", "启动 Docker，并把当前用户加入 docker 组"
        )
    return Check("Docker", "WARN", "没有安装", "安装 Docker；不用 Docker 也能在 Linux 本机运行")


def check_compose(evidence: Evidence) -> Check:
    """Compose v2, or the 1.29 that Debian carries."""
    docker = evidence.machine.docker
    if not docker.compose:
        return Check(
            "Compose", "WARN", "没有安装", "安装 docker-compose-plugin（v2）或 docker-compose 1.29"
        )
    shown = f"{' '.join(docker.compose)} {docker.compose_version}"
    if _version(docker.compose_version) >= (1, 29):
        return Check("Compose", "OK", shown)
    return Check("Compose", "FAIL", shown, "升级到 v2 或 1.29")


def check_nvidia_runtime(evidence: Evidence) -> Check:
    """Whether a container can be given the GPU."""
    name, docker = "NVIDIA 容器运行时", evidence.machine.docker
    if docker.nvidia_runtime:
        return Check(name, "OK", "nvidia")
    if not evidence.machine.gpus or not docker.daemon:
        return Check(
            name, "WARN", "没有", "有 GPU 并用 Docker 时才需要：安装 nvidia-container-toolkit"
        )
    return Check(
        name,
        "WARN",
        "没有：容器看不到 GPU",
        "安装 nvidia-container-toolkit，运行 nvidia-ctk runtime configure；或用 --no-docker",
    )


def check_python(evidence: Evidence) -> Check:
    """The repository needs 3.11, more than the book's 3.8."""
    shown = ".".join(map(str, evidence.python))
    if evidence.python >= (3, 11):
        return Check("Python", "OK", f"{shown}（书中写 3.8+，本仓库需要 3.11+）")
    return Check("Python", "FAIL", shown, "本仓库需要 3.11 或更新（书中写的 3.8 不够）")


def check_disk(evidence: Evidence) -> Check:
    """50 GB for models, as the book asks; the CPU labs need far less."""
    free = evidence.machine.disk_free_bytes
    shown = f"剩余 {free / 1e9:.0f} GB"
    if free >= DISK_BYTES:
        return Check("磁盘", "OK", shown)
    if free >= 10e9:
        return Check("磁盘", "WARN", shown, "书中要求 50 GB（存放模型）；CPU 实验 10 GB 就够")
    return Check("磁盘", "FAIL", shown, "至少留出 10 GB；用 GPU 需要 50 GB")


def check_memory(evidence: Evidence) -> Check:
    """Main memory for vLLM's CPU build."""
    machine = evidence.machine
    available, total = machine.memory_available_bytes / GIB, machine.memory_total_bytes / GIB
    shown = f"可用 {available:.1f} / {total:.1f} GiB"
    if machine.memory_available_bytes >= 2 * CPU_MEMORY_BYTES:
        return Check("内存", "OK", shown)
    enough = machine.memory_available_bytes >= CPU_MEMORY_BYTES
    return Check(
        "内存",
        "WARN" if enough else "FAIL",
        shown,
        f"关闭其他程序，留出 {2 * CPU_MEMORY_BYTES // GIB} GiB",
    )


def check_cpu(evidence: Evidence) -> Check:
    """Instruction sets for vLLM's CPU build."""
    machine = evidence.machine
    shown = (
        f"{machine.cpu_count} 核，{'、'.join(sorted(machine.cpu_flags)) or machine.architecture}"
    )
    problem = native_cpu_problem(machine)
    if problem:
        return Check("CPU", "WARN", f"{shown}；{problem}", native_cpu_remedy(machine))
    if "avx512f" not in machine.cpu_flags:
        return Check("CPU", "OK", f"{shown}（没有 AVX-512：能跑，较慢）")
    return Check("CPU", "OK", shown)


def check_models(evidence: Evidence) -> Check:
    """A place to download models from."""
    answered = [site for site, problem in evidence.sites.items() if problem is None]
    if answered:
        return Check("模型站点", "OK", f"可以访问 {'、'.join(answered)}")
    tried = "；".join(f"{site}（{problem}）" for site, problem in evidence.sites.items())
    remedy = "在 .env 中设置 HF_ENDPOINT（镜像）或 VLLM_USE_MODELSCOPE=True；CPU 实验不用下载"
    return Check("模型站点", "WARN", f"都连不上：{tried}", remedy)


def check_ports(evidence: Evidence) -> Check:
    """The ports that the lab listens on."""
    taken = {name: value for name, value in evidence.ports.items() if value[1] is not None}
    if not taken:
        shown = "、".join(str(port) for port, _ in evidence.ports.values())
        return Check("端口", "OK", f"{shown} 可用")
    shown = "、".join(f"{port} 被 {who or '其他程序'} 占用" for port, who in taken.values())
    return Check("端口", "WARN", shown, f"停掉它，或在 .env 中改 {'、'.join(taken)}")


CHECKS: tuple[Callable[[Evidence], Check], ...] = (
    check_gpu,
    check_driver,
    check_docker,
    check_compose,
    check_nvidia_runtime,
    check_python,
    check_disk,
    check_memory,
    check_cpu,
    check_models,
    check_ports,
)


def _needed_driver() -> int:
    return int(versions()["cuda"]["driver"])


def _version(text: str) -> tuple[int, ...]:
    return tuple(
        int(part) for part in text.split("-")[0].split("+")[0].split(".") if part.isdigit()
    )


def _port_state(port: int) -> tuple[int, str | None]:
    running = lifecycle.current()
    ours = running and port in (running.api_port, running.jupyter_port)
    return port, None if ours or is_free(port) else holder(port)
