"""Goodput counts what met its targets; the search finds the knee."""

import pytest
from handmade_samples import sample
from hypothesis import given
from hypothesis import strategies as st

from inferlab.errors import LabError, UsageError
from inferlab.load import Status
from inferlab.measure.goodput import Slo, find_capacity, goodput
from inferlab.measure.window import Window


def test_an_slo_is_read() -> None:
    assert Slo.parse("ttft=500ms, tpot=50") == Slo(ttft_ms=500, tpot_ms=50)
    assert Slo.parse("e2e=1.5s,itl=80ms") == Slo(e2e_ms=1500, itl_ms=80)
    for wrong in ("", "ttft", "ttft=-1", "p99=3", "ttft=1min"):
        with pytest.raises(UsageError, match="看不懂 SLO"):
            Slo.parse(wrong)


def test_every_target_must_be_met() -> None:
    one = sample(ttft_s=0.1, itl_s=0.02)
    assert Slo(ttft_ms=101, tpot_ms=21, itl_ms=21, e2e_ms=301).meets(one)
    assert not Slo(ttft_ms=99).meets(one)
    assert not Slo(tpot_ms=19).meets(one)
    assert not Slo(itl_ms=19).meets(one)
    assert not Slo(e2e_ms=299).meets(one)
    assert not Slo().meets(sample(status=Status.CUT))


def test_goodput_counts_failures_against_the_share() -> None:
    samples = [
        sample(0.0),
        sample(1.0, ttft_s=2.0),
        sample(2.0, status=Status.HTTP_ERROR),
        sample(3.0, status=Status.CANCELLED),
        sample(9.0),
    ]
    seen = goodput(samples, Slo(ttft_ms=500), Window(0.0, 10.0))
    assert seen.share == 0.5
    assert seen.requests_per_s == pytest.approx(0.2)
    assert seen.output_tokens_per_s == pytest.approx(2.2)


def test_an_overloaded_engine_has_served_what_ended() -> None:
    """Two a second are sent, one a second ends: each within its (generous) targets."""
    samples = [sample(at / 2, ttft_s=0.1 + at / 2, itl_s=0.0) for at in range(40)]
    seen = goodput(samples, Slo(ttft_ms=60_000), Window(4.0, 16.0))
    assert seen.share == 1.0
    assert seen.requests_per_s == pytest.approx(1.0, abs=0.1)


@given(st.floats(0.1, 3000))
def test_the_search_finds_the_knee(knee: float) -> None:
    found = find_capacity(lambda rate: rate <= knee, 1.0)
    assert found.rate_per_s <= knee
    assert found.rate_per_s * 1.05 >= knee
    assert all(held == (rate <= knee) for rate, held in found.tried)


def test_the_search_gives_up_with_one_line() -> None:
    with pytest.raises(LabError, match="达不到 SLO"):
        find_capacity(lambda rate: False)
    assert find_capacity(lambda rate: True, highest_per_s=100).rate_per_s >= 100
