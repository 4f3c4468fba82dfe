"""How a load splits between prefill and decode: against rates worked out by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferlab.arithmetic.separation import (
    Rates,
    Split,
    best_split,
    colocated_requests_per_s,
    rates,
    splits,
)
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter03 import known_shape
from inferlab.errors import LabError

H200 = Ceilings(700e12, 4.29e12)


def test_two_rates_give_the_split_of_four_gpus_by_hand() -> None:
    # 50 ms a prompt: 20 prompts/s. 40 sequences, 10 ms a step, 200 steps: 20 answers/s.
    known = Rates(prefill_s=0.05, batch=40, step_s=0.01, output=201)
    assert known.prompts_per_s == pytest.approx(20)
    assert known.answers_per_s == pytest.approx(20)
    ways = [(1, 3, 20), (2, 2, 40), (3, 1, 20)]
    assert splits(known, 4) == [Split(p, d, pytest.approx(rate)) for p, d, rate in ways]
    assert best_split(known, 4).prefill == 2


def test_a_long_prompt_wants_more_prefill_and_a_long_answer_more_decode() -> None:
    shape = known_shape("qwen3-8b")
    prompts = rates(shape, H200, prompt=8192, output=128, tpot_s=0.025)
    answers = rates(shape, H200, prompt=256, output=1024, tpot_s=0.025)
    assert best_split(prompts, 4).prefill == 3
    assert best_split(answers, 4).prefill == 1


def test_the_batch_fits_the_tpot_and_the_cache() -> None:
    shape = known_shape("qwen3-8b")
    known = rates(shape, H200, prompt=1024, output=256, tpot_s=0.010)
    assert known.step_s <= 0.010
    small = rates(shape, H200, prompt=1024, output=256, tpot_s=0.010, kv_tokens=12_800)
    assert small.batch == 10 < known.batch
    with pytest.raises(LabError, match="TPOT"):
        rates(shape, H200, prompt=1024, output=256, tpot_s=0.001)
    with pytest.raises(LabError, match="两个"):
        best_split(known, 1)


@settings(deadline=None, max_examples=20)
@given(prompt=st.integers(64, 16_384), output=st.integers(8, 1024), tpot=st.floats(0.006, 0.1))
def test_separation_never_answers_more_than_both_phases_alone_allow(
    prompt: int, output: int, tpot: float
) -> None:
    shape = known_shape("qwen3-8b")
    try:
        known = rates(shape, H200, prompt=prompt, output=output, tpot_s=tpot, kv_tokens=800_000)
    except LabError:
        return
    for split in splits(known, 4):
        assert split.requests_per_s <= split.prefill * known.prompts_per_s + 1e-9
        assert split.requests_per_s <= split.decode * known.answers_per_s + 1e-9
    together = colocated_requests_per_s(known, shape, H200, prompt=prompt, tpot_s=tpot)
    assert together <= min(known.prompts_per_s, known.answers_per_s) + 1e-9
