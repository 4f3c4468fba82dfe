"""Arrival processes have the distribution they say, from one seed."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.errors import UsageError
from inferlab.load import RequestSpec, TimedRequest, schedule
from inferlab.load.arrivals import binomial, constant, first, gamma, merge, poisson, ramp, replay
from inferlab.measure.statistics import coefficient_of_variation, lag1_autocorrelation

N = 20_000


def gaps(times: list[float]) -> np.ndarray:
    return np.diff(times)


def test_constant_times() -> None:
    assert first(constant(4), 4) == [0, 0.25, 0.5, 0.75]


def test_poisson_gaps_are_exponential_and_independent() -> None:
    seen = gaps(first(poisson(8, Random(1)), N))
    assert seen.mean() == pytest.approx(1 / 8, rel=0.03)
    assert coefficient_of_variation(seen) == pytest.approx(1, abs=0.03)
    assert abs(lag1_autocorrelation(seen)) < 3 / N**0.5


def test_poisson_runs_of_any_seed_scatter_as_they_should() -> None:
    """Lag-1 autocorrelation of 200 runs has the standard error of independent gaps."""
    lags = [lag1_autocorrelation(gaps(first(poisson(8, Random(s)), 500))) for s in range(200)]
    assert np.std(lags) * 499**0.5 == pytest.approx(1, abs=0.15)
    assert abs(np.mean(lags)) < 3 / (200 * 499) ** 0.5 + 1 / 499


def test_binomial_arrivals_have_a_fixed_count_in_each_span_and_are_poisson_within() -> None:
    for seed in range(20):
        times = np.array(list(binomial(4.2, [5, 15], Random(seed))))
        assert len(times) == 84 and (times < 5).sum() == 21 and times.max() < 20
        assert list(times) == sorted(times)
    seen = gaps(list(binomial(8, [N / 8], Random(1))))
    assert seen.mean() == pytest.approx(1 / 8, rel=0.001)
    assert coefficient_of_variation(seen) == pytest.approx(1, abs=0.03)
    assert abs(lag1_autocorrelation(seen)) < 3 / N**0.5
    counts = [(np.array(list(binomial(8, [60], Random(s)))) < 30).sum() for s in range(300)]
    assert np.var(counts) == pytest.approx(480 / 4, rel=0.25)  # n p (1 - p), half of Poisson's


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_gamma_gaps_have_the_variation_asked_for(cv: float) -> None:
    seen = gaps(first(gamma(8, cv, Random(2)), N))
    assert seen.mean() == pytest.approx(1 / 8, rel=0.1)
    assert coefficient_of_variation(seen) == pytest.approx(cv, rel=0.06)
    assert abs(lag1_autocorrelation(seen)) < 0.04


def test_ramp_follows_its_rate() -> None:
    times = np.array(list(ramp(10, 90, 100, Random(3))))
    assert times[-1] <= 100
    for start in range(0, 100, 20):
        seen = ((times >= start) & (times < start + 20)).sum()
        expected = 20 * (10 + 0.8 * (start + 10))
        assert abs(seen - expected) < 4 * expected**0.5
    down = np.array(list(ramp(90, 0, 10, Random(4))))
    assert (down < 5).sum() > 2 * (down >= 5).sum()


def test_replay_keeps_the_gaps_and_plays_faster() -> None:
    assert list(replay([105.0, 101.0, 103.0], speed=2)) == [0, 1, 2]


@given(st.integers(), st.floats(0.1, 100))
def test_a_seed_fixes_the_run(seed: int, rate: float) -> None:
    assert first(poisson(rate, Random(seed)), 20) == first(poisson(rate, Random(seed)), 20)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(0, 99))
def test_times_only_go_forward(a: float, b: float, seed: int) -> None:
    for times in (list(ramp(a, b, 3, Random(seed))), first(gamma(a, 2, Random(seed)), 50)):
        assert times == sorted(times)


def test_schedule_ends_with_the_first_that_ends() -> None:
    specs = [RequestSpec("a")] * 10
    assert len(schedule(constant(2), specs)) == 10
    assert len(schedule(constant(2), specs, duration_s=2)) == 4
    assert len(schedule([0.0, 1.0], specs)) == 2


def test_merged_loads_are_in_order_of_time() -> None:
    a, b = RequestSpec("a"), RequestSpec("b")
    merged = merge([TimedRequest(0, a), TimedRequest(2, a)], [TimedRequest(1, b)])
    assert [item.spec.prompt for item in merged] == ["a", "b", "a"]


def test_rates_must_be_positive() -> None:
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="必须为正"):
            constant(wrong)
        with pytest.raises(UsageError, match="必须为正"):
            binomial(wrong, [1], Random(0))
    with pytest.raises(UsageError):
        ramp(0, 0, 1, Random(0))
