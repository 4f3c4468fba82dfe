"""The client against the null server: every way an answer can come, and every way it can fail."""

import asyncio
import select
from dataclasses import replace
from statistics import median

import pytest

from inferlab.errors import LabError, UsageError
from inferlab.load import Endpoint, RequestSpec, Status, run_async, run_closed_loop
from inferlab.load.client import Client
from inferlab.load.null_process import null_server

SPEC = RequestSpec([1, 2, 3], max_tokens=8)


def send_one(endpoint: Endpoint, spec: RequestSpec = SPEC):
    return run_closed_loop(endpoint, [spec], 1, check=False)[0]


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("continuous", [True, False])
def test_a_whole_answer(api, continuous: bool) -> None:
    with null_server(ttft_ms=20, itl_ms=5, chunk_tokens=3) as server:
        endpoint = server.endpoint(api, continuous_usage=continuous)
        sample = send_one(endpoint, RequestSpec("one two", max_tokens=8, keep_text=True))
    assert sample.status is Status.OK
    assert (sample.prompt_tokens, sample.output_tokens) == (2, 8)
    assert sample.chunk_tokens == ((3, 3, 2) if continuous else (2, 3, 3))
    assert sample.tokens_estimated is not continuous
    assert sample.text == " x" * 8
    assert sample.finish_reason == "length"
    assert sample.scheduled_s <= sample.sent_s < sample.chunk_s[0] < sample.finished_s
    assert sample.ttft_ms == pytest.approx(sample.ttft_from_send_ms + sample.send_delay_ms)


def test_an_engine_in_steps_sends_all_its_tokens_at_their_ends() -> None:
    step_ms = 40
    with null_server(ttft_ms=20, ttft_jitter=0.9, itl_ms=25, step_ms=step_ms) as server:
        samples = run_closed_loop(server.endpoint(), [SPEC] * 12, 6)
        sent = [time for request in server.log() for time in request["chunks"]]
    assert [each.output_tokens for each in samples] == [8] * 12
    assert len(sent) >= 12 * 8, "and the client's own first question"
    assert median(1e3 * time % step_ms for time in sent) < step_ms / 4, "soon after a step's end"
    assert median(each.tpot_ms or 0 for each in samples) == pytest.approx(step_ms, rel=0.2)


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ({"fail_500": 1.0}, Status.HTTP_ERROR, "HTTP 500: scripted"),
        ({"cut": 1.0}, Status.CUT, "closed before"),
        ({"truncated": 1.0}, Status.TRUNCATED, "without [DONE]"),
        ({"no_usage": 1.0}, Status.NO_USAGE, "no final usage"),
        ({"error_event": 1.0}, Status.ERROR_EVENT, "scripted failure"),
        ({"no_stream": True}, Status.NOT_STREAMING, "application/json"),
        ({"model": "other"}, Status.HTTP_ERROR, "HTTP 404: The model `lab` does not exist."),
    ],
)
def test_a_failed_answer(script, status: Status, error: str) -> None:
    with null_server(ttft_ms=2, itl_ms=1, **script) as server:
        sample = send_one(server.endpoint())
    assert sample.status is status
    assert error in sample.error
    assert not sample.ok


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ({"api_key": "secret"}, {}, "拒绝了 API key"),
        ({"model": "qwen"}, {}, "没有模型 'lab' → 可用的模型：qwen"),
        ({"no_stream": True}, {}, "没有流式返回"),
        ({"truncated": 1.0}, {}, "没有给出 usage"),
        ({"cut": 1.0}, {}, "中途断开"),
        ({"fail_500": 1.0}, {}, "HTTP 500"),
        ({"ttft_ms": 5000.0}, {"timeout_s": 0.2}, "没有按时答完"),
    ],
)
def test_an_unusable_endpoint_gives_one_line(script, options, message: str) -> None:
    with (
        null_server(**script) as server,
        pytest.raises(LabError, match=message) as caught,
    ):
        run_closed_loop(server.endpoint(**options), [SPEC], 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("http://127.0.0.1:1", LabError, "连不上.*Connection refused"),
        ("http://no-such-host.invalid", LabError, "cannot resolve"),
        ("127.0.0.1:8000", UsageError, "不完整"),
        ("ftp://127.0.0.1", UsageError, "不完整"),
        ("http://127.0.0.1:99999", UsageError, "不完整"),
    ],
)
def test_a_wrong_address_gives_one_line(url: str, kind: type[LabError], message: str) -> None:
    with pytest.raises(kind, match=message):
        run_closed_loop(Endpoint(url), [SPEC], 1)


def test_tls_to_a_plain_server_is_an_address_error() -> None:
    with null_server() as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(LabError, match="连不上"):
            run_closed_loop(Endpoint(url, connect_timeout_s=2), [SPEC], 1)


def test_a_key_is_sent_and_never_shown() -> None:
    with null_server(api_key="secret", ttft_ms=2, itl_ms=1) as server:
        endpoint = server.endpoint(api_key="secret")
        assert run_closed_loop(endpoint, [SPEC], 1)[0].ok
    assert "secret" not in repr(endpoint)


def test_a_server_that_refuses_running_counts_is_asked_without() -> None:
    with null_server(refuse_options=True, ttft_ms=2, itl_ms=1) as server:
        sample = run_closed_loop(server.endpoint(), [SPEC], 1)[0]
    assert sample.ok
    assert sample.tokens_estimated
    assert sum(sample.chunk_tokens) == sample.output_tokens == 8


def test_an_answer_that_takes_too_long() -> None:
    with null_server(ttft_ms=10, itl_ms=500) as server:
        sample = send_one(server.endpoint(timeout_s=0.7))
    assert sample.status is Status.TIMEOUT
    assert len(sample.chunk_s) >= 1


def test_connections_are_kept_and_reused() -> None:
    async def send(endpoint: Endpoint) -> int:
        client = Client(endpoint)
        for _ in range(5):
            assert (await client.send(SPEC)).ok
        client.close()
        return client.connections_opened

    with null_server(ttft_ms=2, itl_ms=1) as server:
        assert run_async(send(server.endpoint())) == 1


def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    async def flaky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(body))
        event = b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(event) + event)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    async def send() -> list[Status]:
        server = await asyncio.start_server(flaky, "127.0.0.1", 0)
        client = Client(Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        at_once = [await client.send(SPEC), await client.send(SPEC)]
        await asyncio.sleep(0.2)
        later = await client.send(SPEC)
        client.close()
        server.close()
        return [sample.status for sample in (*at_once, later)]

    body = Endpoint().request(SPEC).partition(b"\r\n\r\n")[2]
    assert run_async(send()) == [Status.OK] * 3


def test_a_prompt_larger_than_the_socket_takes_at_once() -> None:
    with null_server(ttft_ms=2, itl_ms=1) as server:
        sample = send_one(server.endpoint(), RequestSpec([12345] * 1_000_000, max_tokens=2))
    assert sample.ok
    assert sample.prompt_tokens == 1_000_000


def test_the_same_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")
    with null_server(ttft_ms=10, itl_ms=2) as server:
        samples = run_closed_loop(server.endpoint(), [SPEC] * 20, 5)
    assert all(sample.ok and sample.chunk_tokens == (1,) * 8 for sample in samples)


def test_token_ids_and_messages_belong_to_one_interface_each() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert Endpoint(api="chat").body(RequestSpec(messages))["messages"] == messages
    with pytest.raises(UsageError, match="token id"):
        Endpoint(api="chat").body(SPEC)
    with pytest.raises(UsageError, match="messages"):
        Endpoint().body(RequestSpec(messages))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://host:1", "/v1"),
        ("http://host:1/", "/v1"),
        ("http://host:1/v1/", "/v1"),
        ("http://host:1/api/v3", "/api/v3"),
        ("http://host:1/v1/chat/completions", "/v1"),
        ("https://host/openai", "/openai/v1"),
    ],
)
def test_base_path(url: str, path: str) -> None:
    assert Endpoint(url).base_path == path


def test_the_body_says_what_the_spec_says() -> None:
    spec = RequestSpec("a", 5, min_tokens=5, ignore_eos=True, temperature=0.5, extra={"seed": 1})
    body = Endpoint(model="m").body(spec)
    wanted = {"model": "m", "prompt": "a", "max_tokens": 5, "min_tokens": 5, "ignore_eos": True}
    assert body.items() >= {**wanted, "temperature": 0.5, "seed": 1, "stream": True}.items()
    assert "min_tokens" not in Endpoint().body(replace(spec, min_tokens=None))
