"""The knee is found where two lines were bent, noise or not, and refused where there is none."""

import numpy as np
import pytest

from inferlab.errors import LabError
from inferlab.measure.knee import find_knee, knee_range

BATCHES = (1, 4, 16, 64, 128, 192, 256, 384)


def bent(knee: float, *, noise: float = 0.0) -> list[float]:
    random = np.random.default_rng(5)
    at = np.array(BATCHES, float)
    exact = 5 + 0.015 * at + 0.016 * np.maximum(0, at - knee)
    return list(exact * (1 + noise * random.standard_normal(len(at))))


@pytest.mark.parametrize("knee", [30, 111, 173, 250])
def test_where_the_lines_meet(knee):
    found = find_knee(BATCHES, bent(knee))
    assert found.batch == pytest.approx(knee, abs=0.5)
    assert (found.base_ms, found.slope_ms) == (pytest.approx(5, 1e-3), pytest.approx(0.015, 0.01))
    assert found.steeper_ms == pytest.approx(0.016, 0.02)
    assert found.error < 1e-3
    assert found.step_ms(np.array([384.0]))[0] == pytest.approx(bent(knee)[-1], 1e-3)


def test_a_percent_of_noise_moves_it_little():
    found = find_knee(BATCHES, bent(111, noise=0.01))
    assert found.batch == pytest.approx(111, abs=25)
    assert found.error < 0.03


def test_a_flattening_curve_a_line_and_too_few_points_are_refused():
    with pytest.raises(LabError, match="越来越陡"):
        find_knee(BATCHES, [5 + 0.015 * b - 1e-5 * b * b for b in BATCHES])
    with pytest.raises(LabError, match="越来越陡"):
        find_knee(BATCHES, [5 + 0.015 * b for b in BATCHES])
    with pytest.raises(LabError, match="只有 5 个"):
        find_knee(BATCHES[:5], bent(30)[:5])


def test_a_line_with_noise_is_seldom_taken_for_two():
    random = np.random.default_rng(7)
    taken = 0
    for _ in range(100):
        noise = 1 + 0.003 * random.standard_normal(len(BATCHES))
        try:
            find_knee(BATCHES, list((5 + 0.015 * np.array(BATCHES)) * noise))
            taken += 1
        except LabError:
            pass
    assert taken <= 15


def test_the_range_shows_how_far_the_knee_hangs_on_one_point():
    low, high = knee_range(BATCHES, bent(111))
    assert (low, high) == (pytest.approx(111, abs=1), pytest.approx(111, abs=1))
    low, high = knee_range(BATCHES, bent(111, noise=0.01))
    assert low < find_knee(BATCHES, bent(111, noise=0.01)).batch < high
    assert high - low > 5
