"""`GpuSampler`: one `GpuSample` of one GPU per call, cheap enough to run beside the engine that it
watches.

What a GPU or driver cannot answer is found once, at the start, and never polled again. What costs
too much CPU is polled less often: see `MAXIMUM_SHARE`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from inferlab.hardware.gpm import GpmReader
from inferlab.hardware.nvml import device, throttle_names
from inferlab.hardware.sample import GpuSample

MAXIMUM_SHARE = 0.001
"""CPU share of one core that one metric may use; a dearer one is read less often and its last value
repeated."""

PCIE_PERIOD_S = 1.0
POWER_INSTANT_FIELD = 186  # NVML_FI_DEV_POWER_INSTANT
KIB = 1024

Values = dict[str, Any]


def _utilization(handle: Any) -> Values:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return {"gpu_util_percent": float(rates.gpu), "memory_util_percent": float(rates.memory)}


def _memory(handle: Any) -> Values:
    # Version 2 leaves the driver's own reservation out of `used`, as nvidia-smi does.
    info = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return {"memory_used_bytes": int(info.used)}


def _memory_v1(handle: Any) -> Values:
    return {"memory_used_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)}


def _power(handle: Any) -> Values:
    return {"power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000}


def _power_instant(handle: Any) -> Values:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [POWER_INSTANT_FIELD])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return {"power_instant_w": value.value.uiVal / 1000}


def _energy(handle: Any) -> Values:
    return {"energy_j": pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000}


def _sm_clock(handle: Any) -> Values:
    return {"sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)}


def _memory_clock(handle: Any) -> Values:
    return {"memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)}


def _temperature(handle: Any) -> Values:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    return {"temperature_c": pynvml.nvmlDeviceGetTemperature(handle, sensor)}


def _throttle(handle: Any) -> Values:
    # The older name of the call: drivers before 535 have no other, and newer ones keep it.
    bitmask = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return {"throttle_reasons": throttle_names(bitmask)}


def _pcie(handle: Any) -> Values:
    received = pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES)
    sent = pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES)
    return {"pcie_rx_bytes_per_s": received * KIB, "pcie_tx_bytes_per_s": sent * KIB}


# Alternatives of one metric, the best first; `None` as a period means: as often as it is cheap.
READERS: dict[str, tuple[Callable[[Any], Values], ...]] = {
    "utilization": (_utilization,),
    "memory": (_memory, _memory_v1),
    "power": (_power,),
    "power_instant": (_power_instant,),
    "energy": (_energy,),
    "sm_clock": (_sm_clock,),
    "memory_clock": (_memory_clock,),
    "temperature": (_temperature,),
    "throttle": (_throttle,),
}


@dataclass
class _Poll:
    """A supported metric: how to read it, what one reading costs, how often, and its last
    values."""

    name: str
    read: Callable[[Any], Values]
    cost_s: float
    period_s: float
    values: Values
    due_s: float = 0.0


class GpuSampler:
    """Samples one GPU. Use inside `nvml_session()`, and as a context manager or with `close()`.

    Args:
        index: NVML index of the GPU.
        gpm: read GPM metrics where the GPU has them (Hopper and newer); adds 0.12 s to the start.
        pcie: without GPM, read PCIe throughput with `nvmlDeviceGetPcieThroughput`. Off by default:
            each of its two calls blocks for about 20 ms, so it is read once a second at most. With
            GPM, PCIe and NVLink traffic come with the other GPM metrics at no extra cost and this
            argument changes nothing.

    Attributes:
        unsupported: metric → NVML's reason, for each that this GPU or driver lacks; those fields
            stay `None`.

    Raises:
        UsageError: there is no GPU with this index.
    """

    def __init__(self, index: int, *, gpm: bool = True, pcie: bool = False) -> None:
        self.index = index
        self.unsupported: dict[str, str] = {}
        self._handle = device(index)
        self._gpm = self._open_gpm() if gpm else None
        has_pcie = self._gpm is not None and "pcie_rx_bytes_per_s" in self._gpm.fields
        readers = {**READERS, "pcie": (_pcie,)} if pcie and not has_pcie else READERS
        found = [self._try(name, alternatives) for name, alternatives in readers.items()]
        self._polls = [poll for poll in found if poll is not None]

    def _open_gpm(self) -> GpmReader | None:
        try:
            return GpmReader(self._handle)
        except (pynvml.NVMLError, AttributeError) as error:
            self.unsupported["gpm"] = str(error)
            return None

    def _try(self, name: str, alternatives: tuple[Callable[[Any], Values], ...]) -> _Poll | None:
        for read in alternatives:
            try:
                values = read(self._handle)
                cost_s = min(_cpu_s(read, self._handle) for _ in range(3))
            except (pynvml.NVMLError, AttributeError) as error:
                self.unsupported[name] = str(error)
                continue
            self.unsupported.pop(name, None)
            floor_s = PCIE_PERIOD_S if name == "pcie" else 0.0
            return _Poll(name, read, cost_s, polling_period_s(cost_s, floor_s), values)
        return None

    def sample(self, *, boundary: bool = False) -> GpuSample:
        """Read the GPU now.

        Args:
            boundary: a phase begins or ends here. Every metric is read whatever it costs, and the
                GPM window is restarted, so that what follows holds nothing of what came before.
        """
        now_s = time.monotonic()
        values = self._read_gpm()
        for poll in self._polls:
            if now_s >= poll.due_s or (boundary and poll.name != "pcie"):
                self._refresh(poll, now_s)
            values.update(poll.values)
        if boundary:
            self._restart_gpm()
        return GpuSample(monotonic_s=now_s, wall_time_s=time.time(), index=self.index, **values)

    def _refresh(self, poll: _Poll, now_s: float) -> None:
        try:
            poll.values = poll.read(self._handle)
        except pynvml.NVMLError:
            # A driver that fails once (a reset, a lost GPU) must not end a long recording.
            poll.values = {}
        poll.due_s = now_s + poll.period_s

    def _read_gpm(self) -> Values:
        try:
            return self._gpm.read() if self._gpm is not None else {}
        except pynvml.NVMLError:
            return {}

    def _restart_gpm(self) -> None:
        if self._gpm is not None:
            with suppress(pynvml.NVMLError):
                self._gpm.restart()

    def costs_ms(self) -> dict[str, float]:
        """CPU milliseconds of one reading of each metric, as measured at the start."""
        gpm = {} if self._gpm is None else {"gpm": self._gpm.cost_s * 1000}
        return {poll.name: poll.cost_s * 1000 for poll in self._polls} | gpm

    def periods_s(self) -> dict[str, float]:
        """Metrics that may be read less often than sampled, with their period in seconds."""
        gpm = {} if self._gpm is None else {"gpm": self._gpm.window_s}
        return {poll.name: poll.period_s for poll in self._polls if poll.period_s > 0} | gpm

    def close(self) -> None:
        """Free GPM's buffers; further samples hold no GPM metrics."""
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None

    def __enter__(self) -> "GpuSampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cpu_s(read: Callable[[Any], Values], handle: Any) -> float:
    began_s = time.thread_time()
    read(handle)
    return time.thread_time() - began_s


def polling_period_s(cost_s: float, floor_s: float = 0.0) -> float:
    """How long to wait between readings that cost `cost_s` of CPU each; 0 means at every sample.

    A reading under 0.1 ms is always made: at 10 Hz it stays within `MAXIMUM_SHARE`.
    """
    free_s = 0.1 * MAXIMUM_SHARE
    return max(floor_s, 0.0 if cost_s <= free_s else cost_s / MAXIMUM_SHARE)
