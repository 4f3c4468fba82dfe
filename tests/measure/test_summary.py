"""Figures of a run: per token, per request, and failures apart."""

import pytest
from handmade_samples import sample
from hypothesis import given
from hypothesis import strategies as st

from inferlab.load import RequestSample, Status
from inferlab.measure.summary import failures, latency, summarise
from inferlab.measure.window import Window


def test_latencies_of_one_answer() -> None:
    one = sample(5.0, ttft_s=0.1, itl_s=0.02, tokens=11, wait_s=0.3)
    assert one.ttft_ms == pytest.approx(400)
    assert one.ttft_from_send_ms == pytest.approx(100)
    assert one.send_delay_ms == pytest.approx(300)
    assert one.tpot_ms == pytest.approx(20)
    assert one.e2e_ms == pytest.approx(600)


@given(st.integers(1, 8), st.integers(2, 20), st.floats(0.001, 0.1))
def test_itl_is_per_token_however_many_a_chunk_carries(size: int, count: int, itl: float) -> None:
    one = sample(itl_s=itl, tokens=size * count, per_chunk=size)
    assert one.tpot_ms == pytest.approx(itl * 1e3)
    assert len(one.itl_ms) == size * (count - 1)
    assert sum(one.itl_ms) == pytest.approx(sum(one.chunk_gap_ms))
    assert one.itl_ms == pytest.approx([itl * 1e3] * len(one.itl_ms))


def test_an_answer_in_one_chunk_has_no_tpot() -> None:
    one = sample(tokens=4, per_chunk=4)
    assert one.tpot_ms is None
    assert summarise([one]).tpot_ms is None


def test_throughput_says_what_it_counts() -> None:
    summary = summarise([sample(0.0), sample(0.7, tokens=21)])
    assert summary.duration_s == pytest.approx(0.7 + 0.5)
    assert summary.output_tokens == 32
    assert summary.output_tokens_per_s == pytest.approx(32 / 1.2)
    assert summary.total_tokens_per_s == pytest.approx(232 / 1.2)
    assert summary.requests_per_s == pytest.approx(2 / 1.2)


def test_failed_requests_are_counted_by_kind_and_kept_out() -> None:
    good = [sample(0.1 * i) for i in range(10)]
    bad = [sample(0.05, ttft_s=9, status=status) for status in Status if status is not Status.OK]
    mixed, clean = summarise([*good, *bad]), summarise(good)
    assert (mixed.ttft_ms, mixed.itl_ms, mixed.e2e_ms) == (
        clean.ttft_ms,
        clean.itl_ms,
        clean.e2e_ms,
    )
    assert (mixed.ok, mixed.cancelled, mixed.failed) == (10, 1, len(bad) - 1)
    assert mixed.failures["cut"] == 1
    assert failures(good) == {}


def test_a_window_counts_what_arrives_in_it_and_who_is_scheduled_in_it() -> None:
    samples = [sample(at, ttft_s=0.1, itl_s=0.1, tokens=10) for at in (0.0, 1.0, 2.0)]
    summary = summarise(samples, Window(1.0, 2.0))
    assert summary.requests == 1
    assert summary.duration_s == 1.0
    assert summary.output_tokens_per_s == pytest.approx(10, abs=1)


def test_latency_may_also_count_from_sending() -> None:
    late = [sample(0.0, wait_s=2.0), sample(1.0)]
    assert summarise(late).ttft_ms.max == pytest.approx(2100)
    assert summarise(late, from_schedule=False).ttft_ms.max == pytest.approx(100)
    assert summarise(late).send_delay_ms.max == pytest.approx(2000)


def test_a_run_without_answers_has_no_figures() -> None:
    summary = summarise([sample(status=Status.CONNECT_ERROR)])
    assert summary.ttft_ms is None
    assert summary.output_tokens_per_s == 0
    assert summarise([]).requests == 0
    assert latency([]) is None


def test_estimated_counts_are_told() -> None:
    one = RequestSample(0, 0.0, 0.0, 1.0, Status.OK, (0.5, 1.0), (1, 1), tokens_estimated=True)
    assert not summarise([one]).token_counts_exact
    assert summarise([sample()]).token_counts_exact
