"""Synthetic samples: for what takes samples (writers, summaries, views), not for NVML itself."""

from inferlab.hardware.sample import GpuSample


def sample(at_s: float, phase: str = "", **metrics) -> GpuSample:
    """A sample at `at_s` seconds; `metrics` are fields of `GpuSample`."""
    times = {"monotonic_s": at_s, "wall_time_s": 1.7e9 + at_s}
    return GpuSample(**{**times, "index": 0, "phase": phase, **metrics})


FULL = sample(
    12.5,
    "decode",
    gpu_util_percent=100.0,
    memory_used_bytes=123 * 2**30,
    power_w=412.5,
    energy_j=98765.432,
    sm_clock_mhz=1980,
    temperature_c=55,
    throttle_reasons=("sw_power_cap", "sync_boost"),
    gpm_window_s=0.1,
    sm_active=0.93,
    tensor_active=0.04,
    dram_active=0.71,
)
SPARSE = sample(12.6, throttle_reasons=())
