"""Events become times and token counts without parsing JSON chunk by chunk."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inferlab.load.sse import StreamReader


def event(text: str | None = None, *, count: int | None = None, **more: Any) -> bytes:
    content: dict[str, Any] = {"choices": [] if text is None else [{"text": text, **more}]}
    if count is not None:
        content["usage"] = {"prompt_tokens": 3, "completion_tokens": count}
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def read(*events: bytes) -> StreamReader:
    reader = StreamReader(keep_lines=True)
    for number, data in enumerate(events):
        reader.feed(data, float(number))
    return reader


DONE = b"data: [DONE]\n\n"


def test_running_counts_give_the_tokens_of_each_chunk() -> None:
    reader = read(event("ab", count=2), event("c", count=5), event(count=5), DONE)
    assert (reader.times, reader.chunk_tokens(5)) == ([0.0, 1.0], (2, 3))
    assert reader.usage() == {"prompt_tokens": 3, "completion_tokens": 5}
    assert reader.done


def test_a_token_without_text_still_counts_with_running_counts() -> None:
    reader = read(event("", count=1), event("é", count=2), event(count=2), DONE)
    assert reader.times == [0.0, 1.0]


def test_final_count_is_spread_over_the_chunks() -> None:
    reader = read(event("a b"), event("c d"), event(""), event("e"), event(count=5), DONE)
    assert reader.times == [0.0, 1.0, 3.0]
    assert reader.chunk_tokens(5) == (1, 2, 2)
    assert not reader.has_counts


def test_the_role_chunk_of_chat_is_no_token() -> None:
    role = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
    word = b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n'
    assert read(role, word, event(count=1), DONE).times == [1.0]


def test_running_usage_of_a_broken_stream_is_not_final() -> None:
    assert read(event("a", count=1), event("b", count=2)).usage() is None
    assert read(event("a", count=1, finish_reason="length"), DONE).usage() is not None


def test_errors_inside_the_stream_are_seen() -> None:
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    assert read(event("a"), error, DONE).error == "out of memory"
    assert read(event('{"error": "x"}', count=1), event(count=1), DONE).error == ""


@given(st.text(), st.integers(1, 9))
def test_no_text_is_mistaken_for_a_count_or_an_error(text: str, count: int) -> None:
    tricky = text + '{"completion_tokens": 99, "error": 1, "choices": []}' + text
    reader = read(event(tricky, count=count), event(count=count), DONE)
    assert (reader.tokens, reader.error, reader.text()) == ([count], "", tricky)


@given(st.lists(st.integers(0, 2000), max_size=10))
def test_events_survive_any_cut(cuts: list[int]) -> None:
    data = event("ab", count=1) + b": ping\r\n\r\n" + event("cd", count=4) + event(count=4) + DONE
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    reader = StreamReader()
    for a, b in pairwise(edges):
        reader.feed(data[a:b], float(a))
    assert (reader.tokens, reader.done, reader.error) == ([1, 3], True, "")
    assert reader.usage() is not None
