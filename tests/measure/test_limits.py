"""Measured ÷ limit, against figures worked out by hand."""

import pytest
from handmade_samples import sample

from inferlab.measure.limits import Occupancy, decode_bytes_per_step, mbu, mfu, occupancy
from inferlab.measure.window import Window


def test_mbu_of_one_stream() -> None:
    """16 GB of weights read in 5 ms is 3.2 TB/s: two thirds of an H200's 4.8 TB/s."""
    share = mbu(16e9, 5e-3, 4.8e12)
    assert share.achieved_per_s == pytest.approx(3.2e12)
    assert share.fraction == pytest.approx(2 / 3)
    assert mbu(16e9, 5e-3, 4.8e12, devices=2).fraction == pytest.approx(1 / 3)


def test_mfu_of_prefill() -> None:
    """16 GFLOP a token (8B parameters) at 30,000 tokens/s is 480 TFLOP/s of 989."""
    assert mfu(16e9, 30e3, 989e12).fraction == pytest.approx(480 / 989)


def test_kv_cache_is_read_for_each_sequence() -> None:
    read = decode_bytes_per_step(16e9, 147_456, Occupancy(sequences=32, context_tokens=1000))
    assert read == 16e9 + 32 * 1000 * 147_456


def test_occupancy_comes_from_the_samples() -> None:
    pair = [sample(0.0, ttft_s=1.0, itl_s=0.1, tokens=11, prompt=100)] * 2
    seen = occupancy(pair, Window(1.0, 2.0))
    assert seen.sequences == pytest.approx(2)
    assert seen.context_tokens == pytest.approx(105.5)
    half = occupancy(pair, Window(0.0, 2.0))
    assert half.sequences == pytest.approx(1)
    assert occupancy([]) == Occupancy(0.0, 0.0)
