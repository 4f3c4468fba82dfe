"""Steps counted while all decode; static and continuous batches of the same lengths."""

import pytest
from handmade_samples import sample

from inferlab.errors import LabError
from inferlab.load import Endpoint
from inferlab.load.null_process import null_server
from inferlab.load.workloads import Lengths
from inferlab.measure.decode_grid import measure, steps_together, tokens_ahead
from inferlab.measure.static_batching import Served, requests, slot_share
from inferlab.measure.under_test import UnderTest

ENGINE = UnderTest(Endpoint(), seed=3)


def test_only_steps_with_everybody_in_count():
    early = sample(0.0, itl_s=0.02, tokens=31)  # first token at 0.1, last at 0.7
    late = sample(0.0, ttft_s=0.3, itl_s=0.02, tokens=31)  # first at 0.3, last at 0.9
    found = steps_together([early, late])
    assert found.step_ms == pytest.approx(20.0)
    assert found.counted == pytest.approx(20)
    # The early one has made 11 tokens at 0.3 s, of which 10 are cached, the late one none.
    assert found.context == pytest.approx(100 + (10 + 0) / 2 + 9.5, abs=0.6)


def test_chunks_of_several_tokens_are_steps_too():
    assert steps_together([sample(itl_s=0.01, tokens=40, per_chunk=4)]).step_ms == pytest.approx(10)


def test_too_few_steps_are_refused():
    with pytest.raises(LabError, match="同时 decode"):
        steps_together([sample(tokens=31), sample(ttft_s=0.65, tokens=31)])


def test_requests_that_fail_are_told_in_one_line():
    with null_server(fail_500=1.0) as server, pytest.raises(LabError, match="4 个请求失败"):
        list(measure(UnderTest(server.endpoint()), {"batches": [4], "contexts": [8]}, None))


def test_both_modes_get_the_same_lengths_and_other_prompts():
    static, continuous = (
        requests(ENGINE, 20, Lengths(4, 9), Lengths(16, 64), 0, mode)
        for mode in ("static", "continuous")
    )
    assert [each.max_tokens for each in static] == [each.max_tokens for each in continuous]
    assert [len(each.prompt) for each in static] == [len(each.prompt) for each in continuous]
    assert all(a.prompt != b.prompt for a, b in zip(static, continuous, strict=True))
    assert len({each.max_tokens for each in static}) > 5


def test_an_idle_slot_is_wasted():
    whole = [Served(0, 0, 0.1, 4, 40), Served(1, 0, 0.1, 4, 40)]
    half = [Served(0, 0, 0.1, 4, 40), Served(1, 0, 0.1, 2, 20)]
    assert slot_share(whole, 2) == 1
    assert slot_share(half, 2) == 0.75


def test_how_far_the_first_is_ahead():
    # One token each 20 ms: the first has those of 0.1, 0.12, … 0.3 s when the last begins.
    assert tokens_ahead([sample(itl_s=0.02, tokens=31), sample(ttft_s=0.31)]) == 11
    # The first ended at 0.28 s; the last came 5 of its lengths later.
    assert tokens_ahead([sample(itl_s=0.02, tokens=10), sample(ttft_s=1.0)]) == 50
