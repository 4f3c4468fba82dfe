"""Failing workers: nothing is lost before the first token, no token is wrong, nothing hangs."""

import asyncio
import json
import time

import pytest
from bench import Bench, bench, in_loop, read, until
from scripted import Worker

from inferlab.engines.router.workers import Worker as FleetWorker

QUICK = ("--prefill-timeout", "1", "--first-token-timeout", "1")


async def all_right(b: Bench, names: str = "abcdefgh") -> int:
    """Sends requests at once, all must be answered rightly; gives the attempts of the worst."""
    answers = await asyncio.gather(*(b.right(name) for name in names))
    return max(int(answer.headers["X-Attempts"]) for answer in answers)


@pytest.mark.parametrize("act", ["500", "no_params", "reset", "die"])
@in_loop
async def test_a_failing_prefill_costs_another_attempt(act: str) -> None:
    async with bench(2, 1) as b:
        b.prefill[0].act = act
        assert await all_right(b) == 2
        assert b.service.counts.failed == 0 and b.service.counts.retries > 0


@pytest.mark.parametrize("act", ["500", "error_first", "reset", "die"])
@in_loop
async def test_a_failing_decode_costs_another_attempt_with_a_new_prefill(act: str) -> None:
    async with bench(2, 2) as b:
        b.decode[0].act = act
        assert await all_right(b) == 2
        prefilled = sum(len(worker.asked) for worker in b.prefill)
        assert prefilled == 8 + b.service.counts.retries
        ids = [seen["X-Request-Id"] for worker in b.prefill for seen in worker.headers]
        assert len(set(ids)) == len(ids)


@in_loop
async def test_a_frozen_prefill_is_left_at_its_time_limit() -> None:
    async with bench(2, 1, *QUICK, "--health-interval", "30") as b:
        b.prefill[0].awake.clear()
        assert await all_right(b) == 2


@in_loop
async def test_a_frozen_decode_is_left_at_its_time_limit() -> None:
    async with bench(1, 2, *QUICK, "--health-interval", "30") as b:
        b.decode[0].awake.clear()
        assert await all_right(b) == 2


@pytest.mark.parametrize("stream", [True, False])
@in_loop
async def test_health_checks_free_requests_from_a_frozen_worker(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferlab.engines.router.workers.HEALTH_TIMEOUT_S", 0.2)
    async with bench(1, 2) as b:
        b.decode[0].awake.clear()
        answer = await b.ask("a", stream=stream)
        assert answer.status == 200 and answer.headers["X-Attempts"] == "2"
        assert answer.headers["X-Decode"] == b.decode[1].url
        assert b.service.fleet.decode[0].problem == "没有响应"


def test_a_healthy_worker_may_be_silent_twice_and_an_unhealthy_one_never() -> None:
    busy, starting = FleetWorker("http://busy"), FleetWorker("http://starting")
    assert starting.problem == "尚未检查"
    busy.found("")
    for worker in (busy, starting):
        worker.found_silent()
    assert busy.healthy and starting.problem == "没有响应"
    busy.found_silent()
    assert busy.healthy
    busy.found_silent()
    assert busy.problem == "没有响应"


@in_loop
async def test_a_decode_that_waits_for_frozen_prefill_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inferlab.engines.router.workers.HEALTH_TIMEOUT_S", 0.2)
    async with bench(2, 1) as b:
        b.decode[0].hold.clear()
        waiting = asyncio.create_task(b.ask("a", stream=False))
        await b.decode[0].began.wait()
        b.prefill[0].awake.clear()
        await until(lambda: len(b.decode[0].asked) == 2)
        b.decode[0].hold.set()
        answer = await waiting
        assert answer.status == 200 and answer.headers["X-Prefill"] == b.prefill[1].url


@in_loop
async def test_a_worker_that_came_back_is_found_before_the_next_health_check() -> None:
    async with bench(2, 1, "--health-interval", "30") as b:
        await b.prefill[0].die()
        for name in "ab":  # in turn: one of them finds out
            await b.right(name)
        assert b.service.fleet.prefill[0].problem == "连不上"
        await b.prefill[0].start()
        await b.prefill[1].die()
        answer = await b.right("c")
        assert answer.headers["X-Prefill"] == b.prefill[0].url
        await b.prefill[0].die()
        assert (await b.ask("d")).status == 502


@in_loop
async def test_a_frozen_worker_does_not_hold_up_who_asks_for_one_that_came_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inferlab.engines.router.workers.LOOK_AGAIN_S", 300.0)
    async with bench(2, 1, "--health-interval", "300") as b:
        back, frozen = b.prefill
        frozen.awake.clear()
        for worker in b.service.fleet.prefill:
            worker.found("连不上")
        answer = await b.right("a")
        assert answer.headers["X-Prefill"] == back.url


@in_loop
async def test_refused_connections_use_up_no_try() -> None:
    async with bench(5, 1, "--tries", "1", "--health-interval", "30") as b:
        for worker in b.prefill[:4]:
            await worker.die()
        answer = await b.right("a")
        assert answer.headers["X-Attempts"] == "5"


@in_loop
async def test_a_dead_decode_is_not_blamed_on_prefill() -> None:
    async with bench(1, 2, "--health-interval", "30") as b:
        await b.decode[0].die()
        await b.right("a")
        assert b.service.fleet.prefill[0].failures == 0
        assert b.service.fleet.decode[0].failures == 1


@pytest.mark.parametrize(("act", "events"), [("cut", 2), ("cut_half", 2), ("no_done", 2)])
@pytest.mark.parametrize("prefill", [0, 1])
@in_loop
async def test_a_stream_lost_after_the_first_token_says_so(
    act: str, events: int, prefill: int
) -> None:
    async with bench(prefill, 1) as b:
        b.decode[0].act = act
        answer = await b.ask("a")
        assert answer.status == 200 and answer.done and len(answer.events) == events + 1
        assert answer.error["type"] == "decode_lost" and b.decode[0].url in answer.error["message"]
        assert b.service.counts.cut == 1 and b.service.counts.failed == 0


@in_loop
async def test_death_in_mid_stream_says_so_and_the_next_request_goes_elsewhere() -> None:
    async with bench(1, 2) as b:
        b.decode[0].hold.clear()
        response = await b.post("a")
        await b.decode[0].die()
        answer = await read(response)
        assert answer.error["type"] == "decode_lost" and answer.done
        await b.right("b")


@in_loop
async def test_a_worker_comes_back_after_a_restart() -> None:
    async with bench(1, 1) as b:
        await b.decode[0].die()
        assert (await b.ask("a")).status in (502, 503)
        await b.decode[0].start()
        await until(lambda: b.service.fleet.ready)
        await b.right("a")


@in_loop
async def test_all_dead_gives_one_line_of_reasons() -> None:
    async with bench(1, 1) as b:
        await b.prefill[0].die()
        first = await b.ask("a")
        assert (
            first.status == 502 and f"prefill {b.prefill[0].url} 连不上" in first.error["message"]
        )
        await until(lambda: not b.service.fleet.ready)
        answer = await b.ask("a")
        assert answer.status == 503 and "\n" not in answer.error["message"]
        assert b.prefill[0].url in answer.error["message"]
        status, text = await b.get("/health")
        assert status == 503 and json.loads(text)["prefill"][0]["problem"] == "连不上"
        assert (await b.get("/metrics"))[1].count("inferlab_router_failed_total 2") == 1


@in_loop
async def test_every_attempt_fails() -> None:
    async with bench(2, 2) as b:
        for worker in b.prefill:
            worker.act = "500"
        answer = await b.ask("a")
        assert answer.status == 502 and answer.error["type"] == "attempts_failed"
        assert answer.error["message"].count("返回 500") == 3
        assert answer.headers["X-Attempts"] == "3"


@in_loop
async def test_an_unhealthy_worker_gets_nothing() -> None:
    async with bench(2, 1) as b:
        b.prefill[0].health = 503
        await until(lambda: not b.service.fleet.prefill[0].healthy)
        assert await all_right(b) == 1
        assert b.prefill[0].asked == []


@pytest.mark.parametrize("act", ["500", "error_first", "reset", "die"])
@in_loop
async def test_replicas_stand_in_for_each_other(act: str) -> None:
    async with bench(0, 2) as b:
        b.decode[0].act = act
        assert await all_right(b) == 2
        assert b.service.counts.failed == 0


@in_loop
async def test_models_come_from_whoever_lives() -> None:
    async with bench(1, 2, "--health-interval", "30") as b:
        await b.decode[0].die()
        assert (await b.get("/v1/models"))[0] == 200
        await b.decode[1].die()
        status, text = await b.get("/v1/models")
        assert status == 503 and "连不上" in text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prefill", [0, 1])
@in_loop
async def test_no_request_outlives_its_deadline(prefill: int, stream: bool) -> None:
    async with bench(prefill, 1, "--deadline", "0.5", "--health-interval", "30") as b:
        b.decode[0].awake.clear()
        begun = time.monotonic()
        answer = await b.ask("a", stream=stream)
        assert answer.status == 504 and answer.error["type"] == "deadline"
        assert 0.45 < time.monotonic() - begun < 10


@in_loop
async def test_the_deadline_ends_a_stream_with_an_error_event() -> None:
    async with bench(1, 1, "--deadline", "1") as b:
        b.decode[0].hold.clear()
        answer = await b.ask("a")
        assert answer.done and answer.error["type"] == "deadline"
        await b.decode[0].aborted.wait()


@pytest.mark.parametrize("where", ["prefill", "decode", "stream", "whole"])
@in_loop
async def test_a_client_that_leaves_aborts_the_engine(where: str) -> None:
    async with bench() as b:
        at: Worker = b.prefill[0] if where == "prefill" else b.decode[0]
        (at.hold if where in ("stream", "whole") else at.awake).clear()
        request = asyncio.create_task(b.post("a", stream=where != "whole"))
        await at.began.wait()
        if where == "stream":
            (await request).close()
        request.cancel()
        await at.aborted.wait()
        await until(lambda: b.service.counts.in_flight == 0)
        assert b.service.counts.failed == b.service.counts.cut == 0
        assert all(worker.in_flight == 0 for worker in b.service.fleet.workers)


@in_loop
async def test_workers_may_come_and_go_all_the_time() -> None:
    async with bench(2, 2) as b:

        async def restarts() -> None:
            for worker in (*b.prefill, *b.decode) * 2:
                await worker.die()
                await asyncio.sleep(0.05)
                await worker.start()
                await until(lambda: all(w.healthy for w in b.service.fleet.workers))

        async def client(name: str) -> None:
            number = 0
            while not chaos.done():
                number += 1
                answer = await b.ask(f"{name}{number}.")
                lost_late = answer.done and answer.events[-1].get("error")
                assert answer.status == 200 and answer.done, answer.text
                assert lost_late or answer.text.count(f"{name}{number}.") == 6

        chaos = asyncio.create_task(restarts())
        await asyncio.gather(chaos, *(client(name) for name in "pqrs"))
        assert b.blocks.misused == [] and b.service.counts.failed == 0
