"""Long prompts among chats: what is sent, and what is read off, against a server of known times."""

from pathlib import Path

import pytest

from inferlab.errors import LabError
from inferlab.load.null_process import null_server
from inferlab.measure.chunked_prefill import DEFAULTS, load, measure

SMALL = {"rate": 20, "prompt": 4, "output": 6, "duration_s": 1.0, "every_s": 0.5,
         "long_prompt": 400, "long_output": 2, "repeats": 2}  # fmt: skip


def test_a_long_prompt_comes_every_two_seconds_and_chats_as_they_like() -> None:
    timed = load(DEFAULTS, repeat=0)
    long = [item for item in timed if item.spec.label == "long"]
    chats = [item for item in timed if item.spec.label == "chat"]
    assert [round(item.at_s, 6) for item in long] == [1 + 2 * i for i in range(15)]
    assert {len(item.spec.prompt) for item in long} == {8000}
    assert {(len(item.spec.prompt), item.spec.max_tokens) for item in chats} == {(128, 128)}
    assert 180 < len(chats) < 300
    assert timed == sorted(timed, key=lambda item: item.at_s)


def test_a_repeat_is_the_same_each_time_and_shares_no_prompt_with_the_next() -> None:
    assert load(SMALL | {"duration_s": 3}, 0) == load(SMALL | {"duration_s": 3}, 0)
    first, second = ({tuple(item.spec.prompt) for item in load(SMALL | {"prompt": 32}, repeat)}
                     for repeat in (0, 1))  # fmt: skip
    assert not first & second


def test_ttft_of_the_long_and_itl_of_the_chats_are_read_off_by_class(tmp_path: Path) -> None:
    with null_server(ttft_ms=5, itl_ms=4, prefill_us_per_token=500) as server:
        series = measure(server.url, tmp_path, SMALL)
    found = {(s.name, s.labels["request"], s.labels["part"]): s.values for s in series}
    assert all(len(values) == 2 for values in found.values())
    # 400 tokens of prefill at 500 us are 200 ms more than the chats'; room for a busy machine.
    assert found["ttft_ms", "long", "p50"][0] > found["ttft_ms", "chat", "p50"][0] + 50
    assert max(found["itl_ms", "chat", "p50"]) > 3.5
    for part in ("p50", "p90", "p99"):
        longest, each = (found[name, "chat", part] for name in ("longest_itl_ms", "itl_ms"))
        assert all(a >= b for a, b in zip(longest, each, strict=True))


def test_a_failed_request_is_an_error_and_no_figure(tmp_path: Path) -> None:
    with (
        null_server(ttft_ms=1, itl_ms=1, cut=1.0) as server,
        pytest.raises(LabError, match=r"失败|断开"),
    ):
        measure(server.url, tmp_path, SMALL)
