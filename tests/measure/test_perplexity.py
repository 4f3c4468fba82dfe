"""Perplexity and acceptance: the arithmetic, without an engine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.errors import LabError
from inferlab.measure.acceptance import Acceptance
from inferlab.measure.perplexity import Likelihood, perplexity, windows

likelihoods = st.builds(
    Likelihood,
    nats=st.floats(0.1, 1e5),
    tokens=st.integers(1, 10**6),
    size_bytes=st.integers(1, 10**7),
)

# As vLLM 0.32 writes them, after 3 drafts of 3 tokens.
METRICS = """\
# TYPE vllm:spec_decode_num_drafts counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="lab"} 3.0
# TYPE vllm:spec_decode_num_draft_tokens counter
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="lab"} 9.0
# TYPE vllm:spec_decode_num_accepted_tokens counter
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="lab"} 6.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="lab"} 10.0
"""


def test_a_uniform_guess_over_a_vocabulary_has_its_size_as_perplexity():
    guess = Likelihood(nats=7 * math.log(5120), tokens=7, size_bytes=14)
    assert guess.perplexity == pytest.approx(5120)
    assert guess.bits_per_byte == pytest.approx(math.log2(5120) / 2)


@given(likelihoods, likelihoods)
def test_the_perplexity_of_two_texts_lies_between_theirs(a: Likelihood, b: Likelihood):
    low, high = sorted((a.nats / a.tokens, b.nats / b.tokens))
    both = a + b
    assert low * (1 - 1e-9) <= both.nats / both.tokens <= high * (1 + 1e-9)


@given(st.lists(st.integers(0, 5119), max_size=50), st.integers(2, 16))
def test_windows_hold_every_token_but_a_lonely_last_one(ids: list[int], length: int):
    cut = list(windows(ids, length))
    joined = [token for window in cut for token in window]
    assert joined == ids[: len(ids) - (len(ids) % length == 1)]
    assert all(2 <= len(window) <= length for window in cut)


def test_an_address_where_nobody_listens_gives_a_remedy():
    with pytest.raises(LabError, match="没有正常回答") as caught:
        perplexity("x = 1\n", "http://127.0.0.1:9")
    assert "./lab status" in caught.value.remedy


def test_acceptance_counts_the_targets_own_token():
    found = Acceptance.from_metrics(METRICS)
    assert found == Acceptance(drafts=3, proposed=9, accepted=6, generated=10)
    assert found.rate == pytest.approx(2 / 3)
    assert found.length == 3.0
    assert found.tokens_per_step == 2.5
    assert (found - found).length == 1.0


def test_an_engine_without_speculative_decoding_has_accepted_nothing():
    without = "\n".join(line for line in METRICS.splitlines() if "spec_decode" not in line)
    found = Acceptance.from_metrics(without + "\n")
    assert (found.rate, found.length, found.tokens_per_step) == (0.0, 1.0, 1.0)
