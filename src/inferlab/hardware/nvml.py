"""NVML without surprises: opening it, GPU identities, processes, clock event reasons by name.

Source of every call: NVML API reference, through NVIDIA's own binding `nvidia-ml-py` (`import
pynvml`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pynvml

from inferlab.errors import UsageError

# Both names of each bit exist (clocks throttle / clocks event reasons); bits 9 and 10 only in the
# older list.
THROTTLE_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class NoGpuError(UsageError):
    """This machine has no NVIDIA GPU, driver or NVML library; commands end with exit code 2."""


@dataclass(frozen=True)
class GpuIdentity:
    """Which GPU this is. No serial number and no UUID: records are published.

    Attributes:
        memory_bytes: total device memory as the driver reports it (below the datasheet's figure).
        reserved_bytes: what the driver keeps of it for itself; programs see the rest.
        power_limit_w: the limit in force, which may lie under the datasheet's board power.
        pcie: negotiated maximum, such as `5.0 x16`.
    """

    index: int
    name: str
    memory_bytes: int | None
    compute_capability: str | None
    driver_version: str | None
    cuda_version: str | None
    power_limit_w: float | None
    max_sm_clock_mhz: int | None
    pcie: str | None
    reserved_bytes: int | None = None


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU; `used_bytes` is `None` where the driver hides it (containers,
    WDDM)."""

    index: int
    pid: int
    name: str
    used_bytes: int | None


@contextmanager
def nvml_session() -> Iterator[None]:
    """Keep NVML open; sessions may nest, because NVML counts its users.

    Raises:
        NoGpuError: there is no NVML library, no driver or no GPU.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise no_gpu_error(str(error)) from None
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            raise no_gpu_error("NVML 报告 0 个 GPU")
        yield
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def no_gpu_error(cause: str) -> NoGpuError:
    """The one line that says why nothing can be sampled here."""
    return NoGpuError(
        f"没有可用的 NVIDIA GPU 或驱动（{cause}）",
        remedy="在装有 NVIDIA 驱动的机器上运行；容器需加 --gpus all",
    )


def optional(read: Callable[..., Any], *arguments: Any) -> Any:
    """The value of one NVML call, or `None` where this GPU or driver cannot answer it."""
    try:
        return read(*arguments)
    except (pynvml.NVMLError, AttributeError, UnicodeDecodeError):
        return None


def throttle_names(bitmask: int) -> tuple[str, ...]:
    """Names of the clock event reasons in an NVML bitmask, lowest bit first.

    A bit that this table does not know is named by its value, so that nothing is hidden.
    """
    names = [name for bit, name in THROTTLE_REASONS.items() if bitmask & bit]
    unknown = bitmask & ~sum(THROTTLE_REASONS)
    return (*names, *([f"unknown_0x{unknown:x}"] if unknown else []))


def gpu_count() -> int:
    """How many GPUs NVML sees; call inside `nvml_session()`."""
    return int(pynvml.nvmlDeviceGetCount())


def device(index: int) -> Any:
    """NVML's handle of one GPU; call inside `nvml_session()`.

    Raises:
        UsageError: there is no GPU with this index.
    """
    count = gpu_count()
    if not 0 <= index < count:
        raise UsageError(f"没有编号为 {index} 的 GPU", remedy=f"本机编号：0–{count - 1}")
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def identify(index: int) -> GpuIdentity:
    """Name, memory, versions and limits of one GPU; call inside `nvml_session()`."""
    handle = device(index)
    memory = optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    limit_mw = optional(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return GpuIdentity(
        index=index,
        name=str(optional(pynvml.nvmlDeviceGetName, handle) or "unknown"),
        memory_bytes=int(memory.total) if memory is not None else None,
        compute_capability="{}.{}".format(*capability) if capability else None,
        driver_version=optional(pynvml.nvmlSystemGetDriverVersion),
        cuda_version=cuda_version(optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)),
        power_limit_w=limit_mw / 1000 if limit_mw is not None else None,
        max_sm_clock_mhz=optional(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        pcie=_pcie(handle),
        reserved_bytes=_reserved_bytes(handle),
    )


def _reserved_bytes(handle: Any) -> int | None:
    second = getattr(pynvml, "nvmlMemory_v2", None)
    memory = optional(pynvml.nvmlDeviceGetMemoryInfo, handle, second) if second else None
    return int(memory.reserved) if memory is not None else None


def cuda_version(encoded: int | None) -> str | None:
    """`13000` → `13.0`: the newest CUDA that the driver runs, not the toolkit that is installed."""
    return None if encoded is None else f"{encoded // 1000}.{encoded % 1000 // 10}"


def _pcie(handle: Any) -> str | None:
    generation = optional(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = optional(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    return f"{generation}.0 x{width}" if generation and width else None


def list_gpus() -> list[GpuIdentity]:
    """Every GPU that NVML sees; an empty list without a GPU or driver."""
    try:
        with nvml_session():
            return [identify(index) for index in range(gpu_count())]
    except NoGpuError:
        return []


def gpu_processes(index: int) -> tuple[GpuProcess, ...]:
    """Compute processes of one GPU with their memory; call inside `nvml_session()`.

    Inside a container the driver may list no process, or give the host's process numbers.
    """
    found = optional(pynvml.nvmlDeviceGetComputeRunningProcesses, device(index)) or ()
    return tuple(
        GpuProcess(index, int(each.pid), _process_name(each.pid), each.usedGpuMemory)
        for each in found
    )


def _process_name(pid: int) -> str:
    # The base name only: arguments and paths hold user names and secrets.
    name = optional(pynvml.nvmlSystemGetProcessName, pid)
    return PurePath(str(name)).name if name else "?"
