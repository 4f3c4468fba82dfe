"""Percentiles against numpy, intervals against the textbook and against known distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.errors import LabError
from inferlab.measure.statistics import (
    apart_by_chance,
    coefficient_of_variation,
    compare,
    differs,
    lag1_autocorrelation,
    mean_interval,
    percentile,
    percentiles,
    ratio_interval,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
positive = st.floats(1e-3, 1e6)


def test_interval_of_a_textbook_sample() -> None:
    interval = mean_interval([4.9, 5.1, 5.0, 5.2, 4.8])
    assert interval.mean == pytest.approx(5.0)
    assert interval.half_width == pytest.approx(2.776445 * math.sqrt(0.025 / 5), rel=1e-6)
    assert interval.n == 5
    assert interval.contains(5.0)
    assert interval.error_bars == pytest.approx((interval.half_width, interval.half_width))


def test_one_run_bounds_nothing() -> None:
    interval = mean_interval([3.0])
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert not differs([3.0], [300.0])


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(LabError):
        mean_interval(values)
    with pytest.raises(LabError):
        percentile(values, 50)


@given(st.lists(numbers, min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], q: float) -> None:
    assert percentile(values, q) == np.percentile(values, q)
    assert percentiles(values, [q])[q] == np.percentile(values, q)


@given(st.lists(numbers, min_size=2, max_size=20), numbers, st.floats(0.1, 100))
def test_interval_follows_shift_and_scale(values: list[float], shift: float, scale: float) -> None:
    base, moved = mean_interval(values), mean_interval([shift + scale * v for v in values])
    tolerance = 1e-6 * (1 + abs(shift) + scale * max(map(abs, values)))
    assert moved.mean == pytest.approx(shift + scale * base.mean, abs=tolerance)
    assert moved.half_width == pytest.approx(scale * base.half_width, abs=tolerance)
    assert base.low <= base.mean <= base.high


@given(st.lists(numbers, min_size=3, max_size=20))
def test_more_confidence_is_wider(values: list[float]) -> None:
    assert mean_interval(values, 0.99).half_width >= mean_interval(values, 0.9).half_width


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=20))
def test_ratio_turns_over_with_its_arguments(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    forward, backward = ratio_interval(a, b), ratio_interval(b, a)
    assert forward.mean * backward.mean == pytest.approx(1)
    if math.isfinite(forward.high) and backward.low > 0:
        assert forward.high * backward.low == pytest.approx(1)


@given(st.lists(positive, min_size=2, max_size=20), st.floats(0.5, 2))
def test_ratio_of_exact_multiples_is_exact(values: list[float], factor: float) -> None:
    ratio = ratio_interval([factor * v for v in values], values)
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


def test_pairing_removes_drift_that_both_share() -> None:
    drift = np.linspace(1, 3, 6)
    noise = np.array([1, -1, 1, -1, 1, -1]) * 0.002
    fast, slow = 100 * drift * (1 + noise), 95 * drift * (1 - noise)
    assert compare(fast, slow).verdict == "higher"
    assert compare(slow, fast).verdict == "lower"
    assert compare(fast, slow, paired=False).verdict == "no difference"


def test_ratio_wants_pairs_and_positive_values() -> None:
    with pytest.raises(LabError, match="成对"):
        ratio_interval([1, 2], [1])
    with pytest.raises(LabError, match="为正"):
        ratio_interval([1, 0], [1, 1])
    assert ratio_interval([2, 2], [1, 1, 1], paired=False).mean == pytest.approx(2)


@pytest.mark.parametrize("draw", ["normal", "uniform", "gamma"])
def test_intervals_cover_the_true_mean_as_often_as_they_say(draw: str) -> None:
    random = np.random.default_rng(7)
    makers = {
        "normal": lambda: random.normal(10, 2, 5),
        "uniform": lambda: random.uniform(8, 12, 5),
        "gamma": lambda: random.gamma(25, 0.4, 5),
    }
    hits = sum(mean_interval(makers[draw]()).contains(10) for _ in range(2000))
    assert 0.925 < hits / 2000 < 0.97


def test_two_values_lie_apart_no_further_than_said_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    hits = 0
    for _ in range(2000):
        apart = apart_by_chance(random.normal(10, 0.2, 5))
        first, second = random.normal(10, 0.2, 2)
        hits += abs(first - second) / 10 <= apart
    assert 0.935 < hits / 2000 < 0.965
    with pytest.raises(LabError, match="至少重复两次"):
        apart_by_chance([3.0])


@pytest.mark.parametrize("paired", [True, False])
def test_ratio_intervals_cover_the_true_ratio(paired: bool) -> None:
    random = np.random.default_rng(8)
    hits = 0
    for _ in range(2000):
        a = 1.2 * random.lognormal(0, 0.1, 5)
        hits += ratio_interval(a, random.lognormal(0, 0.1, 5), paired=paired).contains(1.2)
    assert 0.935 < hits / 2000 < 0.975


def test_gaps_of_a_poisson_process() -> None:
    gaps = np.random.default_rng(9).exponential(1, 20000)
    assert coefficient_of_variation(gaps) == pytest.approx(1, abs=0.03)
    assert lag1_autocorrelation(gaps) == pytest.approx(0, abs=0.03)
    assert lag1_autocorrelation(np.repeat(gaps[:2000], 10)) > 0.85
