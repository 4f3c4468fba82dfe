"""Phases: means, energy as a counter difference, and GPM windows that must not reach back."""

import itertools
import threading

import pytest
from gpu_samples import sample
from hypothesis import given
from hypothesis import strategies as st

from inferlab.hardware.phases import summarize, ticks


def test_energy_is_the_difference_of_the_counter_and_power_its_rate():
    samples = [sample(t, "decode", energy_j=1000 + 300 * t, power_w=310.0) for t in range(11)]
    decode = summarize(samples)["decode"]
    assert decode["energy_j"] == pytest.approx(3000)
    assert decode["duration_s"] == pytest.approx(10)
    assert decode["energy_power_w"] == pytest.approx(300)
    assert decode["power_w"] == pytest.approx(310)


def test_a_repeated_phase_leaves_out_what_lies_between():
    times = [(0, "decode"), (1, "decode"), (2, ""), (3, ""), (4, "decode"), (5, "decode")]
    samples = [sample(t, phase, energy_j=100.0 * t) for t, phase in times]
    decode = summarize(samples)["decode"]
    assert (decode["runs"], decode["energy_j"], decode["duration_s"]) == (2, 200.0, 2)


def test_two_gpus_add_their_energy_but_not_their_time():
    samples = [sample(t, "decode", index=g, energy_j=100.0 * t) for g in (0, 1) for t in range(5)]
    decode = summarize(samples)["decode"]
    assert (decode["energy_j"], decode["duration_s"], decode["energy_power_w"]) == (800, 4, 200)


def test_slow_averages_settle_before_they_count():
    samples = [sample(t / 2, "idle", gpu_util_percent=100.0 if t < 2 else 0.0) for t in range(8)]
    assert summarize(samples)["idle"]["gpu_util_percent"] == 0.0
    assert summarize(samples, settle_s=0)["idle"]["gpu_util_percent"] == 25.0


def test_a_phase_too_short_to_settle_says_so():
    samples = [sample(t / 10, "prefill", gpu_util_percent=50.0) for t in range(3)]
    prefill = summarize(samples)["prefill"]
    assert (prefill["settled"], prefill["gpu_util_percent"]) == (False, 50.0)


def test_a_gpm_window_that_began_before_the_phase_does_not_count():
    samples = [
        sample(1.0, "decode", gpm_window_s=0.1, sm_active=0.0),
        sample(1.1, "decode", gpm_window_s=0.1, sm_active=0.9),
        sample(1.3, "decode", gpm_window_s=0.2, sm_active=0.6),
    ]
    assert summarize(samples)["decode"]["sm_active"] == pytest.approx((0.09 + 0.12) / 0.3)


def test_what_a_gpu_lacks_stays_unknown():
    decode = summarize([sample(0, "decode"), sample(1, "decode")])["decode"]
    assert decode["sm_active"] is decode["energy_j"] is decode["power_w"] is None
    assert decode["throttle_reasons"] == {}


def test_throttling_is_a_share_of_the_samples():
    reasons = [("sw_power_cap",), (), ("sw_power_cap", "gpu_idle"), ()]
    samples = [sample(t + 2, "x", throttle_reasons=each) for t, each in enumerate(reasons)]
    shares = summarize(samples, settle_s=0)["x"]["throttle_reasons"]
    assert shares == {"gpu_idle": 0.25, "sw_power_cap": 0.5}


def test_samples_outside_any_phase_are_left_out():
    assert summarize([sample(0), sample(1)]) == {}


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=30))
def test_means_lie_within_the_samples(values: list[float]):
    samples = [
        sample(10 + 0.1 * i, "x", sm_active=v, gpm_window_s=0.1 if i else 0.0)
        for i, v in enumerate(values)
    ]
    mean = summarize(samples)["x"]["sm_active"]
    assert mean is None or min(values) - 1e-9 <= mean <= max(values) + 1e-9


def test_a_late_tick_skips_what_it_missed():
    moments = iter([0.0, 0.0, 0.35, 0.35, 0.4, 0.4, 0.4, 0.4])
    grid = ticks(10, threading.Event(), clock=lambda: next(moments))
    assert list(itertools.islice(grid, 2)) == pytest.approx([0.0, 0.4])


def test_a_set_event_ends_the_ticks():
    stop = threading.Event()
    stop.set()
    assert list(ticks(10, stop)) == []
