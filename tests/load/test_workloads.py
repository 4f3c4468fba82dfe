"""Workloads have the lengths, shared prefixes and mixtures asked for."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inferlab.errors import UsageError
from inferlab.load import Lengths, RequestSpec, schedule
from inferlab.load.arrivals import constant
from inferlab.load.workloads import (
    Source,
    conversations,
    expected_hit_ratio,
    inject_long,
    random_requests,
    shared_prefixes,
)

TEXT = "def add(a, b):\n    return a + b\n" * 200


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("128", Lengths(128)),
        ("64-256", Lengths(64, 256)),
        ("512~0.8", Lengths(512, cv=0.8)),
    ],
)
def test_lengths_are_read(text: str, lengths: Lengths) -> None:
    assert Lengths.parse(text) == lengths


@pytest.mark.parametrize("text", ["", "0", "9-3", "a", "1-2~3", "-5"])
def test_bad_lengths_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="看不懂长度"):
        Lengths.parse(text)


def test_lengths_have_their_distribution() -> None:
    random = Random(1)
    uniform = [Lengths(64, 256).draw(random) for _ in range(5000)]
    assert (min(uniform), max(uniform)) == (64, 256)
    heavy = np.array([Lengths(512, cv=0.8).draw(random) for _ in range(20000)])
    assert heavy.mean() == pytest.approx(512, rel=0.03)
    assert heavy.std() / heavy.mean() == pytest.approx(0.8, rel=0.05)


def test_random_requests() -> None:
    specs = random_requests(50, Lengths(10, 20), Lengths(5), Random(2), label="chat")
    assert all(10 <= len(spec.prompt) <= 20 for spec in specs)
    assert all(spec.max_tokens == 5 and spec.ignore_eos for spec in specs)
    assert specs == random_requests(50, Lengths(10, 20), Lengths(5), Random(2), label="chat")
    assert specs != random_requests(50, Lengths(10, 20), Lengths(5), Random(3), label="chat")


def test_token_ids_stay_inside_the_vocabulary() -> None:
    ids = Source(vocabulary=100).draw(1000, Random(0))
    assert all(16 <= int(token) < 100 for token in ids)


@given(st.integers(1, 5000), st.integers())
def test_text_prompts_have_about_the_length_asked_for(tokens: int, seed: int) -> None:
    assert len(Source(text=TEXT).draw(tokens, Random(seed))) == 4 * tokens


@given(st.floats(0, 0.9), st.integers(1, 4), st.integers(0, 99))
def test_prefixes_give_the_hit_ratio_asked_for(ratio: float, groups: int, seed: int) -> None:
    assume(ratio * 60 / (60 - groups) < 0.98)
    specs = shared_prefixes(60, 512, ratio, Lengths(8), Random(seed), groups=groups)
    assert all(len(spec.prompt) == 512 for spec in specs)
    assert expected_hit_ratio(specs) == pytest.approx(ratio, abs=8 / 512)


def test_a_hit_ratio_out_of_reach_is_refused() -> None:
    with pytest.raises(UsageError, match=r"达不到命中率 0\.9"):
        shared_prefixes(4, 128, 0.9, Lengths(1), Random(0), groups=4)
    with pytest.raises(UsageError, match="达不到命中率 1"):
        shared_prefixes(4, 128, 1, Lengths(1), Random(0))


def test_a_repeated_prompt_hits_all_but_its_last_block() -> None:
    same = [RequestSpec(list(range(64)))] * 2
    assert expected_hit_ratio(same) == pytest.approx(48 / 128)


def test_long_prompts_are_injected_at_even_intervals() -> None:
    chat = schedule(constant(10), random_requests(100, Lengths(8), Lengths(4), Random(0)))
    mixed = inject_long(chat, 2.0, 4000, 16, Random(1))
    long = [item for item in mixed if item.spec.label == "long"]
    assert [item.at_s for item in long] == [1, 3, 5, 7, 9]
    assert {len(item.spec.prompt) for item in long} == {4000}
    assert sum(item.spec.label == "chat" for item in mixed) == 100
    assert [item.at_s for item in mixed] == sorted(item.at_s for item in mixed)


def test_conversations_have_drawn_turns_and_pauses() -> None:
    chats = conversations(
        200, Lengths(2, 5), Lengths(20), Lengths(30), Random(5), text=TEXT, think_mean_s=2.0
    )
    assert {len(chat.turns) for chat in chats} == {2, 3, 4, 5}
    pauses = [pause for chat in chats for pause in chat.think_s]
    assert np.mean(pauses) == pytest.approx(2.0, rel=0.15)
    assert all(len(chat.think_s) == len(chat.turns) for chat in chats)
