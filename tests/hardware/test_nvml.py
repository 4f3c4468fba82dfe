"""Names of NVML's bits, versions, GPM's raw answers, and how often a metric may be polled."""

import math

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.hardware.gpm import METRICS, RawMetric, decode
from inferlab.hardware.nvml import THROTTLE_REASONS, cuda_version, throttle_names
from inferlab.hardware.sample import FIELD_NAMES
from inferlab.hardware.sampler import MAXIMUM_SHARE, polling_period_s


def test_throttle_bits_have_names():
    assert throttle_names(0) == ()
    assert throttle_names(0x1) == ("gpu_idle",)
    assert throttle_names(0x4 | 0x20) == ("sw_power_cap", "sw_thermal_slowdown")


def test_throttle_bits_agree_with_nvml():
    constants = {
        pynvml.nvmlClocksEventReasonGpuIdle: "gpu_idle",
        pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
        pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
        pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    }
    assert {bit: THROTTLE_REASONS[bit] for bit in constants} == constants


def test_an_unknown_throttle_bit_is_not_hidden():
    assert throttle_names(0x1000) == ("unknown_0x1000",)


@given(st.integers(min_value=0, max_value=2**20))
def test_as_many_names_as_known_bits(bitmask: int):
    known = bin(bitmask & sum(THROTTLE_REASONS)).count("1")
    unknown = bool(bitmask & ~sum(THROTTLE_REASONS))
    assert len(throttle_names(bitmask)) == known + unknown


def test_cuda_version_is_decoded():
    assert cuda_version(13000) == "13.0"
    assert cuda_version(12080) == "12.8"
    assert cuda_version(None) is None


def raw(metric_id: int, value: float, status: int = pynvml.NVML_SUCCESS) -> RawMetric:
    return RawMetric(metric_id, status, value)


def test_gpm_percent_become_fractions_and_mib_become_bytes():
    answer = [
        raw(pynvml.NVML_GPM_METRIC_SM_UTIL, 87.5),
        raw(pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, 61.0),
        raw(pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, 2.0),
    ]
    assert decode(answer) == pytest.approx(
        {"sm_active": 0.875, "dram_active": 0.61, "pcie_rx_bytes_per_s": 2 * 1024**2}
    )


def test_gpm_leaves_out_what_failed_or_is_not_a_number():
    failed = raw(pynvml.NVML_GPM_METRIC_FP16_UTIL, 5.0, pynvml.NVML_ERROR_NOT_SUPPORTED)
    empty_window = raw(pynvml.NVML_GPM_METRIC_SM_UTIL, math.nan)
    unasked = raw(pynvml.NVML_GPM_METRIC_NVDEC_0_UTIL, 5.0)
    assert decode([failed, empty_window, unasked]) == {}


@given(st.floats(min_value=-1.0, max_value=200.0))
def test_gpm_fractions_stay_within_0_and_1(percent: float):
    value = decode([raw(pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, percent)])["tensor_active"]
    assert 0.0 <= value <= 1.0


def test_gpm_metrics_fill_fields_of_the_sample():
    assert {metric.field for metric in METRICS} <= set(FIELD_NAMES)


def test_cheap_metrics_are_read_at_every_sample():
    assert polling_period_s(0.00005) == 0.0


@given(st.floats(min_value=0.00011, max_value=0.1))
def test_dear_metrics_stay_within_their_share_of_a_core(cost_s: float):
    assert cost_s / polling_period_s(cost_s) <= MAXIMUM_SHARE * 1.001


def test_slow_metrics_have_a_floor():
    assert polling_period_s(0.00005, floor_s=1.0) == 1.0
