"""GPM: what NVML's GPU-Util hides. Means of hardware counters between two samples, Hopper and
newer.

NVML's documentation asks for more than 100 ms between the two samples, because the driver refreshes
them that often; `GpmReader` keeps to it by answering only when a window is that long.
Source: NVML API reference, "GPM Functions" and `nvmlGpmMetricId_t`.
"""

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import pynvml

MINIMUM_WINDOW_S = 0.1
# A 10 Hz loop jitters around 100 ms; without slack every second window would be skipped.
WINDOW_SLACK_S = 0.005
MAXIMUM_SHARE = 0.006
"""CPU share of one core that GPM may use; where a reading costs more, the windows grow longer."""
MIB = 1024**2


class Metric(NamedTuple):
    """A GPM metric: NVML's id, the `GpuSample` field it fills, and the factor to that field's
    unit."""

    metric_id: int
    field: str
    scale: float


PERCENT = 0.01
METRICS = (
    Metric(pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL, "graphics_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_SM_UTIL, "sm_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, "sm_occupancy", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, "tensor_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, "dram_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_FP16_UTIL, "fp16_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_FP32_UTIL, "fp32_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_FP64_UTIL, "fp64_active", PERCENT),
    Metric(pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, "pcie_rx_bytes_per_s", MIB),
    Metric(pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, "pcie_tx_bytes_per_s", MIB),
    Metric(pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, "nvlink_rx_bytes_per_s", MIB),
    Metric(pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, "nvlink_tx_bytes_per_s", MIB),
)


class RawMetric(NamedTuple):
    """What `nvmlGpmMetricsGet` filled in for one metric: its id, its own return code, its value."""

    metric_id: int
    status: int
    value: float


def decode(raw: Iterable[RawMetric]) -> dict[str, float]:
    """`GpuSample` fields from GPM's answer: percent become fractions, MiB/s become bytes/s.

    Metrics that failed or are not a number are left out. Fractions are held within 0-1, since the
    driver's ratio of two counters read a moment apart can overshoot by a rounding error.
    """
    known = {metric.metric_id: metric for metric in METRICS}
    values: dict[str, float] = {}
    for metric_id, status, value in raw:
        metric = known.get(metric_id)
        if metric is None or status != pynvml.NVML_SUCCESS or not math.isfinite(value):
            continue
        scaled = value * metric.scale
        values[metric.field] = min(max(scaled, 0.0), 1.0) if metric.scale == PERCENT else scaled
    return values


class GpmReader:
    """GPM metrics of one GPU, read as means over consecutive windows.

    The constructor takes about 0.12 s: it reads one window to find out which metrics this GPU has,
    and asks for no other afterwards. Call inside `nvml_session()` and `close()` at the end.

    Raises:
        pynvml.NVMLError: the GPU or the driver has no GPM (older than Hopper, MIG without
        permission, a sandbox).
    """

    def __init__(self, handle: Any) -> None:
        if not pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._handle = handle
        self._older = pynvml.nvmlGpmSampleAlloc()
        self._newer = pynvml.nvmlGpmSampleAlloc()
        self._request: Any = pynvml.c_nvmlGpmMetricsGet_t()
        self._request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self.fields: tuple[str, ...] = ()
        self.cost_s, self.window_s = 0.0, MINIMUM_WINDOW_S
        try:
            self._probe()
        except pynvml.NVMLError:
            self.close()
            raise

    def _probe(self) -> None:
        self._ask_for([metric.metric_id for metric in METRICS])
        self.restart()
        time.sleep(MINIMUM_WINDOW_S * 1.2)
        raw = self._window()
        began_s = time.thread_time()
        self._window()
        self.cost_s = time.thread_time() - began_s
        self.window_s = max(MINIMUM_WINDOW_S, self.cost_s / MAXIMUM_SHARE)
        supported = [each.metric_id for each in raw if each.status == pynvml.NVML_SUCCESS]
        if not supported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self.fields = tuple(m.field for m in METRICS if m.metric_id in supported)
        self._ask_for(supported)
        self.restart()

    def _ask_for(self, metric_ids: list[int]) -> None:
        self._request.numMetrics = len(metric_ids)
        for slot, metric_id in enumerate(metric_ids):
            self._request.metrics[slot].metricId = metric_id

    def restart(self) -> None:
        """Begin a new window now, so that it holds nothing of what came before."""
        pynvml.nvmlGpmSampleGet(self._handle, self._older)
        self._opened_s = time.monotonic()

    def read(self) -> dict[str, float]:
        """Means since the last window closed, with `gpm_window_s`; empty while the window is too
        short."""
        window_s = time.monotonic() - self._opened_s
        if window_s < self.window_s - WINDOW_SLACK_S:
            return {}
        values = decode(self._window())
        self._older, self._newer = self._newer, self._older
        self._opened_s += window_s
        return {"gpm_window_s": window_s, **values} if values else {}

    def _window(self) -> list[RawMetric]:
        pynvml.nvmlGpmSampleGet(self._handle, self._newer)
        self._request.sample1, self._request.sample2 = self._older, self._newer
        pynvml.nvmlGpmMetricsGet(self._request)
        slots = (self._request.metrics[slot] for slot in range(self._request.numMetrics))
        return [RawMetric(slot.metricId, slot.nvmlReturn, slot.value) for slot in slots]

    def close(self) -> None:
        """Free the driver's sample buffers."""
        for buffer in (self._older, self._newer):
            with suppress(pynvml.NVMLError):
                pynvml.nvmlGpmSampleFree(buffer)
