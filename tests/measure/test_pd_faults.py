"""How requests are judged that ran while a part of the deployment died."""

import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from inferlab.engines.processes import ProcessId
from inferlab.engines.router.limits import KEEPALIVE_S
from inferlab.errors import LabError, UsageError
from inferlab.load.endpoint import Endpoint
from inferlab.load.samples import RequestSample, Status
from inferlab.measure import pd_faults
from inferlab.measure.kv_transfer import Transfers
from inferlab.measure.pd_faults import Outcome, judge
from inferlab.measure.under_test import UnderTest


def sample(status: Status, text: str | None, first_s: float | None, end_s: float) -> RequestSample:
    chunks = () if first_s is None else (first_s,)
    return RequestSample(0, 0.0, 0.5, end_s, status, chunks, (1,) * len(chunks), text=text)


def test_every_end_is_counted_as_what_the_client_saw() -> None:
    samples = [
        sample(Status.OK, "right", 1.0, 2.0),
        sample(Status.OK, "wring", 1.0, 2.0),
        sample(Status.HTTP_ERROR, None, None, 1.0),
        sample(Status.ERROR_EVENT, "ri", 1.0, 9.5),
        sample(Status.ERROR_EVENT, "wro", 1.0, 3.0),
        sample(Status.CUT, "rig", 1.0, 2.0),
        sample(Status.TIMEOUT, None, None, 4.0),
    ]
    assert judge(samples, ["right"] * len(samples)) == Outcome(
        answered=2, lost=1, broken_off=2, silent=2, wrong=2, slowest_s=9.0
    )


def test_the_control_runs_as_often_as_each_fault_and_injects_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = [sample(Status.OK, "right", 1.0, 2.0)] * 2
    run = SimpleNamespace(whole=lambda: right)
    deployment: Any = SimpleNamespace(
        urls=lambda: {"prefill": ["a", "b"], "decode": ["c", "d"]}, url="http://router"
    )
    whole = iter([False, True] * 6)
    waited: list[float] = []
    injected: list[int] = []

    def router_restarted(deployment: Any, number: int, frozen_s: float) -> Any:
        injected.append(number)
        return lambda: None

    monkeypatch.setattr(pd_faults, "closed_loop", lambda *_, **__: run)
    monkeypatch.setattr(pd_faults, "run_closed_loop", lambda *_, **__: right)
    monkeypatch.setattr(pd_faults, "_counters", lambda deployment: {})
    monkeypatch.setattr(pd_faults, "all_in_rotation", lambda url: next(whole))
    monkeypatch.setattr(pd_faults.time, "sleep", waited.append)
    monkeypatch.setitem(pd_faults.FAULTS, "router_restarted", router_restarted)
    engine = UnderTest(Endpoint("http://127.0.0.1:1"))
    given = {"times": 3, "requests": 2, "faults": ["router_restarted"]}
    found = {(s.name, s.labels["fault"]): s.values
             for s in pd_faults.measure(engine, deployment, given)}  # fmt: skip
    assert found["answered", "none"] == found["answered", "router_restarted"] == [2, 2, 2]
    assert injected == [0, 1, 2]
    assert len(waited) == 6, "each time until every worker is in rotation again"
    waited.clear()
    whole = iter([True] * 6)
    monkeypatch.setitem(pd_faults.FAULTS, "router_frozen", router_restarted)
    list(pd_faults.measure(engine, deployment, given | {"faults": ["router_frozen"]}))
    assert waited == [pd_faults.NEW_CONNECTIONS_S] * 3, "the control waits for nothing"
    assert pd_faults.NEW_CONNECTIONS_S > KEEPALIVE_S
    with pytest.raises(UsageError, match="没有名为 router_restart 的故障"):
        list(pd_faults.measure(engine, deployment, given | {"faults": ["router_restart"]}))


def test_kv_caches_are_counted_on_the_workers_that_lived_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = {"p0": 7.0, "p1": 0.0, "d0": 0.0}
    asked: list[str] = []
    workers = [SimpleNamespace(url=url, leader=ProcessId(n, 0.0)) for n, url in enumerate(counted)]
    deployment: Any = SimpleNamespace(engines={each.url: each for each in workers})
    monkeypatch.setattr(pd_faults.health, "complete", lambda url, *_, **__: asked.append(url))
    monkeypatch.setattr(pd_faults.Transfers, "read",
                        lambda urls: Transfers(expired=counted[urls[0]]))  # fmt: skip
    before = pd_faults._counters(deployment)
    workers[0].leader = ProcessId(9, 1.0)  # killed and started again: its 7 are gone
    counted |= {"p0": 1.0, "p1": 4.0}
    moved = pd_faults._counted(before, pd_faults._counters(deployment))
    assert sum(each.expired for each in moved) == 4
    assert asked == ["p0", "p1", "d0"] * 2, "an idle worker has not told its counts yet"


def until(true: Callable[[], bool]) -> bool:
    """Whether it comes true in time: a signal takes effect a moment after it was sent."""
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_what_stands_still_goes_on_by_itself() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as child:
        process = psutil.Process(child.pid)
        awake = pd_faults._stand_still([ProcessId.of(child.pid)], 2.0)
        assert until(lambda: process.status() == psutil.STATUS_STOPPED)
        awake()
        assert until(lambda: process.status() != psutil.STATUS_STOPPED)
        child.kill()


def test_prefill_dies_while_no_decode_worker_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pd_faults, "_stand_still", lambda leaders, seconds: (
        said.append(f"{'+'.join(leaders)} stand still for {seconds:g} s"),
        lambda: said.append("awake"),
    )[1])  # fmt: skip
    monkeypatch.setattr(pd_faults, "_kill", lambda role: lambda deployment, number, frozen_s: (
        said.append(f"{role} {number} killed"),
        lambda: said.append("started again"),
    )[1])  # fmt: skip
    monkeypatch.setattr(pd_faults.time, "sleep", lambda seconds: said.append(f"{seconds:g} s on"))
    engines = {name: SimpleNamespace(leader=name)
               for name in ("prefill-0", "prefill-1", "decode-0", "decode-1")}  # fmt: skip
    deployment: Any = SimpleNamespace(engines=engines)
    pd_faults.FAULTS["prefill_killed_after_handover"](deployment, 3, 0.0)()
    assert said == ["decode-0+decode-1 stand still for 4 s", "2 s on", "prefill 3 killed",
                    "awake", "started again"]  # fmt: skip


def test_the_router_stops_once_prefill_has_something_to_hand_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, seen = iter([0, 0, 2]), []
    monkeypatch.setattr(pd_faults, "in_flight", lambda url, role: next(busy))
    monkeypatch.setattr(pd_faults.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(pd_faults, "_stand_still", lambda leaders, seconds: (
        seen.append((leaders, seconds)), lambda: None)[1])  # fmt: skip
    deployment: Any = SimpleNamespace(url="http://127.0.0.1:1", leader="router")
    pd_faults.FAULTS["router_frozen"](deployment, 0, 40.0)()
    assert seen == [(["router"], 40.0)]
    assert next(busy, None) is None


def test_a_fault_that_could_not_be_injected_is_not_counted() -> None:
    def lost() -> None:
        raise LabError("no router")

    with pytest.raises(LabError, match="no router"), pd_faults._later(0.0, lost):
        pass
