"""One reading of one GPU, as a plain value that writers, plots and summaries share."""

from dataclasses import dataclass, fields, replace
from typing import Any

GPM_FIELDS = (
    "graphics_active",
    "sm_active",
    "sm_occupancy",
    "tensor_active",
    "dram_active",
    "fp16_active",
    "fp32_active",
    "fp64_active",
)
"""Fractions 0-1 that only GPM (Hopper and newer) provides; each is a mean over `gpm_window_s`."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """What one GPU reported at one moment. `None` marks a metric that this GPU or driver lacks.

    Attributes:
        monotonic_s: `time.monotonic()` of this process when the reading began.
        wall_time_s: the same moment as seconds since the Unix epoch.
        index: NVML index; NVML ignores `CUDA_VISIBLE_DEVICES`.
        phase: name of the phase in which the sample fell, empty outside any phase.
        gpu_util_percent: share of the driver's last window (1/6 to 1 s) in which any kernel ran.
        memory_util_percent: share of that window in which device memory was read or written.
        power_w: `nvmlDeviceGetPowerUsage`, averaged over one second by newer GPUs.
        power_instant_w: the instantaneous reading, where the driver has one.
        energy_j: counter since the driver was loaded; only differences mean anything.
        throttle_reasons: names of the active clock event reasons; empty when none is active.
        pcie_rx_bytes_per_s: traffic into the GPU; `tx` is traffic out of it.
        gpm_window_s: seconds that the GPM values cover; `None` when this sample closes no window.
        graphics_active: GPM's finer version of `gpu_util_percent`, as a fraction.
        sm_active: mean share of SMs with at least one warp resident.
        sm_occupancy: resident warps over the most that the SMs can hold.
        tensor_active: share of cycles in which the tensor pipes were busy, over all SMs.
        dram_active: device memory traffic over its theoretical peak.
        fp16_active: share of cycles in which the non-tensor FP16 pipe was busy; fp32, fp64
            likewise.
    """

    monotonic_s: float
    wall_time_s: float
    index: int
    phase: str = ""
    gpu_util_percent: float | None = None
    memory_util_percent: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    power_instant_w: float | None = None
    energy_j: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    pcie_rx_bytes_per_s: float | None = None
    pcie_tx_bytes_per_s: float | None = None
    nvlink_rx_bytes_per_s: float | None = None
    nvlink_tx_bytes_per_s: float | None = None
    gpm_window_s: float | None = None
    graphics_active: float | None = None
    sm_active: float | None = None
    sm_occupancy: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    fp16_active: float | None = None
    fp32_active: float | None = None
    fp64_active: float | None = None

    def row(self) -> dict[str, Any]:
        """The sample as a flat mapping; `throttle_reasons` stays a tuple."""
        return {name: getattr(self, name) for name in FIELD_NAMES}


FIELD_NAMES = tuple(field.name for field in fields(GpuSample))


def carry_gpm(sample: GpuSample, earlier: GpuSample | None) -> GpuSample:
    """The sample, with the GPM values of an earlier one where it closes no window of its own.

    For showing the latest state; a mean must not count a window twice.
    """
    if earlier is None or sample.gpm_window_s is not None:
        return sample
    return replace(sample, **{name: getattr(earlier, name) for name in CARRIED})


CARRIED = ("gpm_window_s", *GPM_FIELDS)
