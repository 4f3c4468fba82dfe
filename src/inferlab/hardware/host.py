"""What machine a result comes from: CPU, memory, container limits, system, GPUs.

For records and `doctor`. It holds no host name, user name, path, serial number or address: records
are published.
"""

import os
import platform
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
)
"""CPU features that decide which kernels a CPU inference engine can use (x86, then Arm)."""

UNLIMITED_BYTES = 2**60


class CpuInfo(BaseModel):
    """The processor, and how much of it this process may use.

    Attributes:
        physical_cores: `None` where the system does not tell (some containers and Arm hosts).
        usable_cores: logical cores in this process's affinity mask.
        quota_cores: the container's CPU quota in cores; `None` without one.
        isa: those of `ISA_FLAGS` that the CPU has.
    """

    model_config = ConfigDict(frozen=True)
    model: str
    architecture: str
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    quota_cores: float | None
    isa: tuple[str, ...]


class MemoryInfo(BaseModel):
    """Main memory in bytes.

    Attributes:
        limit_bytes: the container's limit; `None` without one.
        available_bytes: what can be allocated now without swapping, within the container's limit.
    """

    model_config = ConfigDict(frozen=True)
    total_bytes: int
    available_bytes: int
    limit_bytes: int | None


class GpuInfo(BaseModel):
    """One GPU as NVML identifies it; see `inferlab.hardware.nvml.GpuIdentity`."""

    model_config = ConfigDict(frozen=True)
    index: int
    name: str
    memory_bytes: int | None
    compute_capability: str | None
    power_limit_w: float | None
    max_sm_clock_mhz: int | None
    pcie: str | None
    reserved_bytes: int | None = None


class HostInfo(BaseModel):
    """The whole machine; `gpus` is empty and the driver `None` without an NVIDIA GPU."""

    model_config = ConfigDict(frozen=True)
    cpu: CpuInfo
    memory: MemoryInfo
    system: str
    kernel: str
    container: str | None
    python: str
    driver_version: str | None
    cuda_version: str | None
    gpus: tuple[GpuInfo, ...]


def describe_host() -> HostInfo:
    """Everything a record says about its machine. Never fails for lack of a GPU or of a
    container."""
    identities = _gpu_identities()
    first = identities[0] if identities else None
    return HostInfo(
        cpu=describe_cpu(),
        memory=describe_memory(),
        system=_system(),
        kernel=platform.release().split("-")[0],
        container=_container(),
        python=platform.python_version(),
        driver_version=first.driver_version if first else None,
        cuda_version=first.cuda_version if first else None,
        gpus=tuple(_gpu_info(each) for each in identities),
    )


def is_visible(gpu: int) -> bool:
    """Whether `CUDA_VISIBLE_DEVICES`, when it is set to numbers, lists this NVML index: the other
    GPUs belong to someone else."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")
    numbers = listed.split(",")
    return not listed or not all(each.isdigit() for each in numbers) or str(gpu) in numbers


def _gpu_identities() -> list[Any]:
    try:
        from inferlab.hardware.nvml import list_gpus
    except ImportError:
        # An engine's environment may lack nvidia-ml-py; a record without GPUs is better than none.
        return []
    return list_gpus()


def _gpu_info(identity: Any) -> GpuInfo:
    return GpuInfo(**{name: getattr(identity, name) for name in GpuInfo.model_fields})


def describe_cpu() -> CpuInfo:
    """The processor of this machine, from `/proc/cpuinfo` where there is one."""
    text = _read("/proc/cpuinfo")
    affinity = getattr(os, "sched_getaffinity", None)
    logical = os.cpu_count() or 1
    return CpuInfo(
        model=cpu_model(text) or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        physical_cores=physical_cores(text),
        logical_cores=logical,
        usable_cores=len(affinity(0)) if affinity else logical,
        quota_cores=_quota_cores(),
        isa=isa_flags(text),
    )


def cpu_model(cpuinfo: str) -> str | None:
    """The CPU's marketing name; `None` where the kernel gives none (Arm)."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else None


def physical_cores(cpuinfo: str) -> int | None:
    """Distinct (socket, core) pairs; `None` where the kernel does not list them."""
    sockets = re.findall(r"^physical id\s*:\s*(\d+)$", cpuinfo, re.MULTILINE)
    cores = re.findall(r"^core id\s*:\s*(\d+)$", cpuinfo, re.MULTILINE)
    complete = cores and len(sockets) == len(cores)
    return len(set(zip(sockets, cores, strict=True))) if complete else None


def isa_flags(cpuinfo: str) -> tuple[str, ...]:
    """Those of `ISA_FLAGS` that `/proc/cpuinfo` lists, in their order."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = set(found.group(1).split()) if found else set()
    return tuple(name for name in ISA_FLAGS if name in flags)


def describe_memory() -> MemoryInfo:
    """Main memory, and what this process may still take of it."""
    sizes = meminfo_bytes(_read("/proc/meminfo"))
    total = sizes.get("MemTotal", 0) or _total_from_sysconf()
    available = sizes.get("MemAvailable", total)
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    limit = int(limit) if limit is not None and limit < min(total, UNLIMITED_BYTES) else None
    if limit is not None:
        used = _cgroup_number("memory.current", "memory/memory.usage_in_bytes") or 0
        available = min(available, max(0, limit - int(used)))
    return MemoryInfo(total_bytes=total, available_bytes=available, limit_bytes=limit)


def meminfo_bytes(meminfo: str) -> dict[str, int]:
    """`/proc/meminfo` as bytes by name."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", meminfo, re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in found}


def _total_from_sysconf() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _quota_cores() -> float | None:
    version_2 = _read("/sys/fs/cgroup/cpu.max").split()
    if len(version_2) == 2 and version_2[0] != "max":
        return int(version_2[0]) / int(version_2[1])
    quota = _number(_read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
    period = _number(_read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
    return quota / period if quota and period and quota > 0 else None


def _cgroup_number(version_2: str, version_1: str) -> float | None:
    for name in (version_2, version_1):
        number = _number(_read(f"/sys/fs/cgroup/{name}"))
        if number is not None:
            return number
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _system() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.MULTILINE)
    return found.group(1) if found else platform.system()


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "gVisor" in _read("/proc/version"):
        return "gvisor"
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
