"""Warm-up and drain by the rule."""

import pytest
from handmade_samples import sample

from inferlab.errors import LabError
from inferlab.measure.window import (
    Window,
    mean_in_flight,
    steady_window,
    tokens_arrived,
    whole_window,
)


def test_the_rule_leaves_out_a_tenth_and_the_drain() -> None:
    samples = [sample(float(at), ttft_s=5) for at in range(11)]
    assert steady_window(samples) == Window(1.0, 10.0)
    assert whole_window(samples).start_s == 0
    assert samples[-1].finished_s in whole_window(samples)
    with pytest.raises(LabError, match="请求太少"):
        steady_window(samples[:1])


def test_tokens_and_requests_in_flight() -> None:
    one = sample(1.0, ttft_s=0.5, itl_s=0.1, tokens=6)
    assert tokens_arrived([one], Window(1.45, 1.65)) == 2
    assert mean_in_flight([one, one], Window(0.0, 2.0)) == pytest.approx(1.0)
