"""KV parameters are used once and never late; events are never torn."""

import asyncio
import time

import pytest
from bench import bench, in_loop
from hypothesis import given
from hypothesis import strategies as st

from inferlab.engines.router import handover
from inferlab.engines.router.handover import Heartbeat, StaleError, Ticket
from inferlab.engines.router.stream import Events, error_code
from inferlab.engines.router.workers import Worker


def test_a_ticket_is_good_once() -> None:
    ticket = Ticket({"remote_port": 1}, time.monotonic(), 30)
    assert ticket.redeem() == {"remote_port": 1}
    with pytest.raises(StaleError):
        ticket.redeem()


def test_a_ticket_is_good_for_most_of_the_lease() -> None:
    assert Ticket({"remote_port": 1}, time.monotonic() - 23, 30).redeem()
    with pytest.raises(StaleError, match="租约 30 s"):
        Ticket({"remote_port": 1}, time.monotonic() - 24.1, 30).redeem()


@in_loop
async def test_a_router_that_was_stopped_prefills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(1, 1, "--kv-lease", "3") as b:
        told = handover.params_of

        def stop_once(answer: bytes) -> dict | None:
            monkeypatch.setattr("inferlab.engines.router.exchange.params_of", told)
            time.sleep(2.5)  # the whole loop stands still, as after SIGSTOP
            return told(answer)

        monkeypatch.setattr("inferlab.engines.router.exchange.params_of", stop_once)
        answer = await b.right("a")
        assert answer.headers["X-Attempts"] == "2"
        assert len(b.prefill[0].asked) == 2 and len(b.decode[0].asked) == 1


@in_loop
async def test_age_counts_from_before_the_stop() -> None:
    beat = Heartbeat()
    running = asyncio.create_task(beat.run())
    await asyncio.sleep(0.3)
    stopped = time.monotonic()
    time.sleep(1)
    await asyncio.sleep(0)  # the loop beats first, and wakes a reader afterwards
    await asyncio.sleep(0)
    assert beat.awake_since() <= stopped
    running.cancel()


@given(st.lists(st.sampled_from(["a", "两个字", "\\n"]), min_size=1), st.data())
def test_events_come_whole_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    mark = data.draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    sent = "".join(f"data: {text}{mark}" for text in [*texts, "[DONE]"]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)))))
    events = Events(Worker("http://w"))
    pieces = [events.take(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert b"".join(pieces) == sent and events.done
    assert all(piece.endswith(mark.encode()) for piece in pieces if piece)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b'data: {"error": {"message": "x", "code": 500}}\n\ndata: [DONE]\n\n', 500),
        (b'data: {"error": {"message": "x", "code": 404}}\n\n', 404),
        (b'data: {"error": "x"}\n\n', 500),
        (b'data: {"choices": [{"text": "error"}], "error": null}\n\n', None),
        (b"data: [DONE]\n\n", None),
        (b"data: not json\n\n", None),
        (b": a comment\n\ndata: {}\n\n", None),
    ],
)
def test_the_first_event_may_be_an_error(event: bytes, code: int | None) -> None:
    assert error_code(event) == code
