"""Open loop, closed loop, conversations; and runs that end early."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from inferlab.errors import LabError
from inferlab.load import (
    RequestSample,
    RequestSpec,
    Status,
    TimedRequest,
    closed_loop,
    open_loop,
    run_closed_loop,
    run_conversations,
)
from inferlab.load.null_process import null_server
from inferlab.load.runner import all_answered
from inferlab.load.worker import WorkerPlan, run_in_process
from inferlab.load.workloads import Conversation

SPEC = RequestSpec([1, 2, 3], max_tokens=4)


def test_closed_loop_keeps_so_many_in_flight() -> None:
    with null_server(ttft_ms=30, itl_ms=2) as server:
        samples = run_closed_loop(server.endpoint(), [SPEC] * 20, 5)
    assert [sample.index for sample in samples] == list(range(20))
    edges = sorted([(s.sent_s, 1) for s in samples] + [(s.finished_s, -1) for s in samples])
    level = peak = 0
    for _, step in edges:
        level += step
        peak = max(peak, level)
    assert peak == 5


def test_closed_loop_of_endless_work_ends_by_time() -> None:
    def endless():
        while True:
            yield SPEC

    with null_server(ttft_ms=5, itl_ms=1) as server:
        run = closed_loop(server.endpoint(), endless(), 2, duration_s=0.5)
    assert not run.partial
    assert 0.5 <= run.duration_s < 3
    assert all(sample.scheduled_s < 0.5 for sample in run.samples)


def test_it_works_where_a_loop_runs_already_as_in_jupyter() -> None:
    async def cell(endpoint) -> list[RequestSample]:
        return run_closed_loop(endpoint, [SPEC] * 3, 1)

    with null_server(ttft_ms=5, itl_ms=1) as server:
        assert all(sample.ok for sample in asyncio.run(cell(server.endpoint())))


def test_errors_come_through_from_the_notebooks_thread() -> None:
    async def cell() -> None:
        from inferlab.load import Endpoint

        run_closed_loop(Endpoint("http://127.0.0.1:1"), [SPEC], 1)

    with pytest.raises(LabError, match="连不上"):
        asyncio.run(cell())


def test_open_loop_sends_when_due_whatever_the_server_does() -> None:
    timed = [TimedRequest(0.05 * i, SPEC) for i in range(10)]
    with null_server(ttft_ms=300, itl_ms=1) as server:
        run = open_loop(server.endpoint(), timed)
    delays = sorted(sample.send_delay_ms for sample in run.samples)
    assert delays[len(delays) // 2] < 20
    assert [sample.scheduled_s for sample in run.samples] == [item.at_s for item in timed]


def test_waiting_in_the_client_counts_as_latency() -> None:
    timed = [TimedRequest(0.0, SPEC) for _ in range(6)]
    with null_server(ttft_ms=100, itl_ms=1) as server:
        run = open_loop(server.endpoint(), timed, max_in_flight=1)
    slowest = max(run.samples, key=lambda sample: sample.e2e_ms)
    assert slowest.ttft_ms is not None and slowest.ttft_from_send_ms is not None
    assert slowest.ttft_ms > 600 > slowest.ttft_from_send_ms
    assert slowest.send_delay_ms > 450


def test_requests_wait_in_line_for_the_servers_slots() -> None:
    with null_server(ttft_ms=100, itl_ms=1, slots=1) as server:
        samples = run_closed_loop(server.endpoint(), [SPEC] * 4, 4)
    assert sorted(sample.ttft_ms or 0 for sample in samples)[-1] > 390


def test_progress_is_told_request_by_request() -> None:
    seen: list[int] = []
    with null_server(ttft_ms=5, itl_ms=1) as server:
        run_closed_loop(server.endpoint(), [SPEC] * 5, 1, on_sample=lambda s: seen.append(s.index))
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_of_the_progress_function_comes_through() -> None:
    def broken(sample: RequestSample) -> None:
        raise ZeroDivisionError

    with null_server(ttft_ms=5, itl_ms=1) as server, pytest.raises(ZeroDivisionError):
        closed_loop(server.endpoint(), [SPEC] * 5, 2, on_sample=broken)


def test_a_server_that_dies_stops_the_run_and_keeps_what_was_measured() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server:

        def kill(sample: RequestSample) -> None:
            if sample.index == 5:
                server.kill()

        run = closed_loop(server.endpoint(), [SPEC] * 500, 2, on_sample=kill)
    assert run.partial
    assert "连续 10 个请求连不上" in run.stopped
    assert sum(sample.ok for sample in run.samples) >= 6
    assert len(run.samples) < 100


def test_a_patient_client_asks_on_when_refused() -> None:
    with null_server(ttft_ms=1, itl_ms=1) as server:
        server.kill()
        run = closed_loop(server.endpoint(), [SPEC] * 25, 5, check=False, patience_s=0.05)
    assert not run.partial
    assert [sample.status for sample in run.samples] == [Status.CONNECT_ERROR] * 25
    assert run.duration_s > 4 * 0.05


def test_a_closed_loop_has_one_place_at_least() -> None:
    with null_server(ttft_ms=1, itl_ms=1) as server:
        assert len(closed_loop(server.endpoint(), [SPEC] * 3, 0).samples) == 3


def test_a_notebook_run_whose_server_dies_says_so() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server:

        def kill(sample: RequestSample) -> None:
            server.kill()

        with pytest.raises(LabError, match="没有做完"):
            run_closed_loop(server.endpoint(), [SPEC] * 100, 1, on_sample=kill)


def test_ctrl_c_keeps_what_was_measured() -> None:
    code = (
        "import sys, json\n"
        "from inferlab.load import *\n"
        "run = closed_loop(Endpoint(sys.argv[1]), [RequestSpec([1], 4)] * 100000, 4,"
        " on_sample=lambda s: print('.', flush=True) if s.index == 3 else None)\n"
        "print(json.dumps([run.stopped, sorted({s.status for s in run.samples})]))\n"
    )
    with (
        null_server(ttft_ms=20, itl_ms=5) as server,
        subprocess.Popen(
            [sys.executable, "-c", code, server.url], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == ".\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stopped, kinds = json.loads(process.stdout.readline())
    assert "Ctrl-C" in stopped
    assert kinds == ["cancelled", "ok"]


def test_ctrl_c_ends_what_a_notebook_run_is_part_of() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server, pytest.raises(KeyboardInterrupt):
        run_closed_loop(
            server.endpoint(), [SPEC] * 1000, 2,
            on_sample=lambda sample: signal.raise_signal(signal.SIGINT),
        )  # fmt: skip


def test_a_failed_request_is_told_with_its_reason() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server:
        assert len(all_answered(run_closed_loop(server.endpoint(), [SPEC] * 3, 1))) == 3
    with null_server(fail_500=1.0) as server:
        samples = run_closed_loop(server.endpoint(), [SPEC] * 3, 1, check=False)
    with pytest.raises(LabError, match=r"3 个请求失败（http_error"):
        all_answered(samples)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_conversation_carries_its_history(api) -> None:
    chats = [Conversation(("one two", "three"), 4, system="be brief", think_s=(0.1, 0.0))] * 2
    with null_server(ttft_ms=10, itl_ms=1) as server:
        run = run_conversations(server.endpoint(api), chats, [0.0, 0.2])
    first, second = (s for s in run.samples if s.index < 1000)
    assert (first.label, second.label) == ("turn1", "turn2")
    assert (first.prompt_tokens, second.prompt_tokens) == (4, 4 + 4 + 1)
    assert second.scheduled_s == pytest.approx(first.finished_s + 0.1)
    assert len(run.samples) == 4


def test_a_conversation_ends_at_its_first_failure() -> None:
    chats = [Conversation(("a", "b", "c"), 2)] * 3
    with null_server(ttft_ms=2, itl_ms=1, fail_500=1.0) as server:
        run = run_conversations(server.endpoint(), chats, [0.0] * 3, check=False)
    assert [sample.status for sample in run.samples] == [Status.HTTP_ERROR] * 3


def test_a_worker_process_runs_the_same_plan() -> None:
    with null_server(ttft_ms=5, itl_ms=1) as server:
        plan = WorkerPlan(server.url, 20, rate_per_s=100, output_tokens=4, seed=4)
        result = run_in_process(plan)
    random = Random(4)
    due = [item.at_s for item in plan.timed(random, plan.specs(random))]
    assert [sample.scheduled_s for sample in result.run.samples] == due
    assert 0 < result.cpu_s < 5


def test_a_worker_process_that_fails_says_why() -> None:
    with pytest.raises(LabError, match="连不上"):
        run_in_process(WorkerPlan("http://127.0.0.1:1", 1, concurrency=1))


def test_a_ramp_starts_the_places_of_a_closed_loop_one_after_another() -> None:
    with null_server(ttft_ms=400, itl_ms=1) as server:
        samples = closed_loop(server.endpoint(), [SPEC] * 8, 4, ramp_s=0.2).samples
    first = sorted(sample.scheduled_s for sample in samples)[:4]
    assert first == pytest.approx([0.0, 0.05, 0.1, 0.15], abs=0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="schedstat is Linux's")
def test_a_client_without_a_cpu_of_its_own_knows_it() -> None:
    cpu = min(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    mine = os.sched_getaffinity(0)
    try:
        for process in busy:
            os.sched_setaffinity(process.pid, {cpu})
        os.sched_setaffinity(0, {cpu})
        with null_server(ttft_ms=1, itl_ms=1) as server:
            found = closed_loop(server.endpoint(), [RequestSpec([1], 64)] * 64, 16)
    finally:
        os.sched_setaffinity(0, mine)
        for process in busy:
            process.kill()
            process.wait()
    assert found.waited_s is not None and found.waited_s > 0
    assert found.starved == (found.waited_s > 0.05 * found.duration_s)
