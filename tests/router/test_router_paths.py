"""Healthy workers: what goes to whom, and what the client receives."""

import asyncio
import json
import logging

import pytest
from bench import bench, in_loop, read, until
from scripted import tokens_of


@in_loop
async def test_prefill_gets_one_token_to_make_and_decode_the_parameters() -> None:
    async with bench() as b:
        answer = await b.right("a", stream_options={"include_usage": True}, min_tokens=3)
        (asked,), (then,) = b.prefill[0].asked, b.decode[0].asked
    assert asked["max_tokens"] == 1 and not {"stream_options", "min_tokens"} & asked.keys()
    assert asked["kv_transfer_params"]["do_remote_decode"]
    assert then["max_tokens"] == 6 and then["min_tokens"] == 3
    assert then["kv_transfer_params"]["do_remote_prefill"]
    assert answer.headers["X-Prefill"] == b.prefill[0].url
    assert answer.headers["X-Decode"] == b.decode[0].url
    assert answer.headers["X-Attempts"] == "1"


@in_loop
async def test_load_is_spread_over_all_workers() -> None:
    async with bench(2, 2) as b:
        await asyncio.gather(*(b.right(name) for name in "abcdefgh"))
        assert [len(worker.asked) for worker in b.prefill + b.decode] == [4, 4, 4, 4]


@in_loop
async def test_a_busy_worker_gets_less() -> None:
    async with bench(0, 2) as b:
        b.decode[0].hold.clear()
        slow = await b.post("a")
        for name in "bcd":
            await b.right(name)
        assert [len(worker.asked) for worker in b.decode] == [1, 3]
        b.decode[0].hold.set()
        assert (await read(slow)).done


@in_loop
async def test_the_first_event_arrives_before_the_last_is_sent() -> None:
    async with bench() as b:
        b.decode[0].hold.clear()
        response = await b.post("a")
        first = await response.content.readuntil(b"\n\n")
        assert json.loads(first[6:])["choices"][0]["text"] == tokens_of("a")[0]
        b.decode[0].hold.set()
        assert (await read(response)).done


@in_loop
async def test_an_answer_in_one_piece() -> None:
    async with bench() as b:
        answer = await b.ask("a", stream=False)
        assert json.loads(answer.text)["choices"][0]["text"] == "".join(tokens_of("a"))
        assert answer.headers["X-Decode"] == b.decode[0].url


@in_loop
async def test_chat_limits_prefill_by_either_name() -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "stream": True}
    async with bench() as b:
        for name in ("max_tokens", "max_completion_tokens"):
            url = f"{b.url}/v1/chat/completions"
            answer = await read(await b.client.post(url, json=body | {name: 9}))
            assert answer.done and answer.text == "".join(tokens_of("a"))
            assert b.decode[0].asked[-1][name] == 9


@in_loop
async def test_a_replica_gets_the_body_as_it_came() -> None:
    async with bench(0, 1) as b:
        await b.right("a", temperature=0.1)
        asked = b.decode[0].asked[0]
        assert asked["temperature"] == 0.1 and "kv_transfer_params" not in asked


@in_loop
async def test_only_the_useful_headers_reach_the_engine() -> None:
    async with bench() as b:
        headers = {"Authorization": "Bearer k", "X-Request-Id": "mine", "X-Other": "1"}
        url, body = f"{b.url}/v1/completions", {"prompt": "a"}
        async with b.client.post(url, json=body, headers=headers) as response:
            assert response.headers["X-Request-Id"].startswith("mine-")
        for worker in b.prefill + b.decode:
            (seen,) = worker.headers
            assert seen["Authorization"] == "Bearer k" and "X-Other" not in seen
            assert seen["X-Request-Id"].startswith("mine-")


@pytest.mark.parametrize("prefill", [0, 1])
@in_loop
async def test_a_refusal_of_the_engine_passes_unchanged(prefill: int) -> None:
    async with bench(prefill, 2) as b:
        for worker in b.prefill or b.decode:
            worker.act = "400"
        answer = await b.ask("a")
        assert answer.status == 400 and answer.error["message"] == "too long"
        assert sum(len(worker.asked) for worker in b.prefill or b.decode) == 1


@in_loop
async def test_a_refusal_inside_the_stream_passes_unchanged() -> None:
    async with bench(1, 2) as b:
        b.decode[0].act = b.decode[1].act = "refused_first"
        answer = await b.ask("a")
        assert answer.status == 200 and answer.error["code"] == 400 and answer.done
        assert len(b.prefill[0].asked) == 1


@pytest.mark.parametrize("extra", [{"n": 2}, {"best_of": 2}, {"prompt": ["a", "b"]}])
@in_loop
async def test_requests_that_would_read_the_blocks_twice_are_refused(extra: dict) -> None:
    async with bench() as b:
        answer = await b.ask(**{"prompt": "a"} | extra)
        assert answer.status == 400 and "拆成多个请求" in answer.error["message"]
        assert b.prefill[0].asked == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"a":' * 100_000])
@in_loop
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    async with bench(0, 1) as b, b.client.post(f"{b.url}/v1/completions", data=body) as response:
        assert response.status == 400
        assert "JSON" in (await response.json())["error"]["message"]


@in_loop
async def test_a_body_of_megabytes_passes() -> None:
    async with bench() as b:
        prompt = "x" * (3 << 20)
        answer = await b.ask(prompt, stream=False)
        assert answer.status == 200 and b.decode[0].asked[0]["prompt"] == prompt


@in_loop
async def test_one_log_line_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "inferlab.router"):
        async with bench() as b:
            await b.right("a")
            await until(lambda: bool(caplog.messages))
            line = json.loads(caplog.messages[0])
            assert line["prefill"] == b.prefill[0].url and line["decode"] == b.decode[0].url
    assert line["path"] == "/v1/completions" and line["outcome"] == "ok"
    assert 0 < line["prefill_ms"] <= line["first_event_ms"] <= line["total_ms"]
    assert line["attempts"] == 1 and "reasons" not in line


@in_loop
async def test_the_paths_of_the_last_requests_can_be_asked_for() -> None:
    async with bench() as b:
        for name in "ab":
            await b.right(name)
        await until(lambda: b.service.counts.in_flight == 0)
        first, second = json.loads((await b.get("/requests"))[1])
    assert first["at"] <= second["at"] and first["id"] != second["id"]
    assert (second["prefill"], second["decode"]) == (b.prefill[0].url, b.decode[0].url)


@in_loop
async def test_models_health_and_metrics() -> None:
    async with bench(1, 2) as b:
        await b.right("a")
        assert "lab" in (await b.get("/v1/models"))[1]
        status, text = await b.get("/health")
        health = json.loads(text)
        assert status == 200 and health["status"] == "ok" and len(health["decode"]) == 2
        await until(lambda: b.service.counts.in_flight == 0)
        status, text = await b.get("/metrics")
    assert "# TYPE inferlab_router_requests_total counter" in text
    assert "inferlab_router_requests_total 1" in text and "inferlab_router_in_flight 0" in text
    url = b.prefill[0].url
    assert f'inferlab_router_worker_healthy{{role="prefill",url="{url}"}} 1' in text
    assert f'inferlab_router_worker_requests_total{{role="prefill",url="{url}"}} 1' in text
