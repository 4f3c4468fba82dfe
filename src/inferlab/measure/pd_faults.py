"""What clients see when a part of a PD deployment dies, freezes or restarts while it works.

Each time the same requests run against the deployment, and one fault is injected, at a moment
drawn anew (or with the first requests, where the fault is made for those). A request may end in the
whole answer or in a clear error, in time; its text must be that of a run without faults as far as
it goes. Afterwards what died is started again on its own port.

A GPU's kernels add up in an order that depends on what shares the batch, so that a greedy answer
may differ without any fault. Hence the control: as many runs without a fault, whose `wrong` are
the kernels' alone.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from inferlab.engines import health, temporary
from inferlab.engines.deployment import RunningDeployment
from inferlab.engines.processes import ProcessId, session_members
from inferlab.engines.router.client import all_in_rotation, in_flight
from inferlab.engines.router.limits import KEEPALIVE_S
from inferlab.errors import LabError, UsageError
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, closed_loop, run_closed_loop
from inferlab.load.samples import RequestSample, RequestSpec, Status
from inferlab.load.workloads import Lengths, Source, random_requests
from inferlab.measure.kv_transfer import Transfers
from inferlab.measure.under_test import UnderTest

DEFAULTS = {"times": 10, "requests": 24, "concurrency": 4, "prompt": 400, "output": 48,
            "deadline_s": 90, "frozen_s": 15, "faults": None}  # fmt: skip
RESTART_LIMIT_S = 300.0
HANDED_OVER_S = 2.0  # for the prompts under way to be computed and handed over
# Until the router has given up the idle connections of the run before. A worker that stood still
# closes them when it wakes, also those that a request waits on: the router prefills that one anew,
# and what was handed over for it is never read.
NEW_CONNECTIONS_S = KEEPALIVE_S + 0.5
PATIENCE_S = 1.0  # of a client that was refused a connection, while the router restarts
CONTROL = "none"
CLEAR = frozenset({Status.HTTP_ERROR, Status.ERROR_EVENT, Status.CONNECT_ERROR})
Fault = Callable[[RunningDeployment, int, float], Callable[[], None]]


@dataclass(frozen=True)
class Load:
    """What runs against the deployment each time.

    Attributes:
        expected: the answers' texts in a run without a fault, in order.
        calm_s: how long that run took.
    """

    endpoint: Endpoint
    specs: Sequence[RequestSpec]
    concurrency: int
    expected: Sequence[str] = ()
    calm_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How the requests of one run with a fault ended.

    Attributes:
        answered: the whole answer, as without the fault.
        lost: a clear error before the first token.
        broken_off: a clear error after it.
        silent: an end without a word, or none within the deadline.
        wrong: text that differs from the run without a fault.
        slowest_s: longest time from sending to the end.
        expired: KV caches that nobody read within their lease; of workers that lived on. Those
            of a lease that outlasts the run are counted in a later one.
        failed_reads: of KV caches; the decode worker computed those prompts itself. Likewise.
    """

    answered: int
    lost: int
    broken_off: int
    silent: int
    wrong: int
    slowest_s: float
    expired: int = 0
    failed_reads: int = 0


def measure(
    engine: UnderTest, deployment: RunningDeployment, given: dict[str, Any]
) -> Iterator[Series]:
    """Each fault's outcomes, one value a time it was injected; first those of the control.

    Args:
        given: see `DEFAULTS`; `faults` names some of `FAULTS`, `USUAL` when it is None.

    Yields:
        `answered`, `lost`, `broken_off`, `silent`, `wrong` (requests), `slowest_s`, `expired` and
        `failed_reads` (KV caches); label `fault`, `none` for the control.

    Raises:
        LabError: the deployment cannot survive a fault, or did not come back after one.
        UsageError: a fault has no such name.
    """
    known = DEFAULTS | given
    faults = known["faults"] or USUAL
    if unknown := [name for name in faults if name not in FAULTS]:
        raise UsageError(
            f"没有名为 {'、'.join(unknown)} 的故障", remedy=f"可用：{'、'.join(FAULTS)}"
        )
    if min(map(len, deployment.urls().values())) < 2:
        raise LabError("要有两个 prefill 和两个 decode 才谈得上换一个", remedy="换一个部署")
    endpoint = replace(engine.endpoint, timeout_s=float(known["deadline_s"]))
    load = _calm(Load(endpoint, _requests(engine, known), int(known["concurrency"])))
    for name in (CONTROL, *faults):
        found = []
        for number in range(int(known["times"])):
            with engine.mark(f"{name} {number + 1}"):
                found.append(_once(load, deployment, name, number, float(known["frozen_s"])))
        yield from _series(name, found)


def judge(samples: Sequence[RequestSample], expected: Sequence[str]) -> Outcome:
    """Count how requests ended; `expected` are the texts of the run without a fault, in order."""
    failed = [sample for sample in samples if not sample.ok]
    clear = [sample for sample in failed if sample.status in CLEAR]
    return Outcome(
        answered=len(samples) - len(failed),
        lost=sum(sample.first_token_s is None for sample in clear),
        broken_off=sum(sample.first_token_s is not None for sample in clear),
        silent=len(failed) - len(clear),
        wrong=sum(not right.startswith(sample.text or "")
                  for sample, right in zip(samples, expected, strict=True)),
        slowest_s=max(sample.finished_s - sample.sent_s for sample in samples),
    )  # fmt: skip


def _once(
    load: Load, deployment: RunningDeployment, name: str, number: int, frozen_s: float
) -> Outcome:
    repairs: list[Callable[[], None]] = []
    moment = Random(f"{name}/{number}").uniform(0.1, 0.8) * load.calm_s
    before = _counters(deployment)
    if name in AT_THE_START:
        time.sleep(NEW_CONNECTIONS_S)
        moment = 0.0
    inject = _nothing if name == CONTROL else FAULTS[name]
    with _later(moment, lambda: repairs.append(inject(deployment, number, frozen_s))):
        result = closed_loop(
            load.endpoint, load.specs, load.concurrency, check=False, patience_s=PATIENCE_S
        )
    for repair in repairs:
        repair()
    samples = result.whole()
    _until_whole(load, deployment)
    moved = _counted(before, _counters(deployment))
    return replace(judge(samples, load.expected),
                   expired=int(sum(each.expired for each in moved)),
                   failed_reads=int(sum(each.failed for each in moved)))  # fmt: skip


def _counters(deployment: RunningDeployment) -> dict[ProcessId, Transfers]:
    """Of every worker's process; one that was started again is another, and counts from zero."""
    for engine in deployment.engines.values():
        # vLLM looks for expired leases, and tells its counts, only in the steps that it computes.
        health.complete(engine.url, health.PROMPT, max_tokens=2)
    return {e.leader: Transfers.read([e.url]) for e in deployment.engines.values()}


def _counted(
    before: dict[ProcessId, Transfers], after: dict[ProcessId, Transfers]
) -> list[Transfers]:
    """By each of the workers that lived through it."""
    return [after[leader].since(seen) for leader, seen in before.items() if leader in after]


def _calm(load: Load) -> Load:
    """The load with what a run of it without a fault gave."""
    began = time.monotonic()
    samples = run_closed_loop(load.endpoint, load.specs, load.concurrency, check=False)
    expected = [sample.text or "" for sample in all_answered(samples)]
    return replace(load, expected=expected, calm_s=time.monotonic() - began)


def _requests(engine: UnderTest, known: dict[str, Any]) -> list[RequestSpec]:
    found = random_requests(
        int(known["requests"]), Lengths.parse(str(known["prompt"])),
        Lengths.parse(str(known["output"])), Random(f"{engine.seed}/faults"),
        source=Source(engine.vocabulary),
    )  # fmt: skip
    return [replace(spec, keep_text=True) for spec in found]


def _kill(role: str) -> Fault:
    def inject(deployment: RunningDeployment, number: int, frozen_s: float) -> Callable[[], None]:
        victim = f"{role}-{number % 2}"
        engine = deployment.engines[victim]
        for process in session_members(engine.leader):
            os.kill(process.pid, signal.SIGKILL)

        def repair() -> None:
            engine.stop()
            port = int(engine.url.rpartition(":")[2])
            again = temporary.launch(replace(engine.recipe, port=port))
            deployment.engines[victim] = temporary.awaited(again, limit_s=RESTART_LIMIT_S)

        return repair

    return inject


def _freeze(role: str) -> Fault:
    def inject(deployment: RunningDeployment, number: int, frozen_s: float) -> Callable[[], None]:
        return _stand_still([deployment.engines[f"{role}-{number % 2}"].leader], frozen_s)

    return inject


def _freeze_router(
    deployment: RunningDeployment, number: int, frozen_s: float
) -> Callable[[], None]:
    """What prefill hands over meanwhile waits in the router's sockets and grows old."""
    deadline = time.monotonic() + HANDED_OVER_S
    while not in_flight(deployment.url, "prefill") and time.monotonic() < deadline:
        time.sleep(0.01)
    return _stand_still([deployment.leader] if deployment.leader else [], frozen_s)


def _kill_prefill_after_handover(
    deployment: RunningDeployment, number: int, frozen_s: float
) -> Callable[[], None]:
    """No decode worker reads while prefill goes on; then what was handed over by the one that dies
    cannot be read."""
    decode = [deployment.engines[f"decode-{place}"].leader for place in range(2)]
    until_awake = _stand_still(decode, 2 * HANDED_OVER_S)
    time.sleep(HANDED_OVER_S)
    restart = _kill("prefill")(deployment, number, frozen_s)

    def repair() -> None:
        until_awake()
        restart()

    return repair


def _stand_still(leaders: Sequence[ProcessId], seconds: float) -> Callable[[], None]:
    """Freezes these sessions for some seconds; the answer waits until they are awake again."""
    family = [process for leader in leaders for process in session_members(leader)]
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)

    def thaw() -> None:
        for process in family:
            os.kill(process.pid, signal.SIGCONT)

    timer = threading.Timer(seconds, thaw)
    timer.start()
    return timer.join


def _restart_router(
    deployment: RunningDeployment, number: int, frozen_s: float
) -> Callable[[], None]:
    deployment.restart_router()
    return lambda: None


def _nothing(deployment: RunningDeployment, number: int, frozen_s: float) -> Callable[[], None]:
    return lambda: None


# Quickest first: those at the end start a worker again each time.
FAULTS: dict[str, Fault] = {
    "router_restarted": _restart_router,
    "router_frozen": _freeze_router,
    "prefill_frozen": _freeze("prefill"),
    "decode_frozen": _freeze("decode"),
    "prefill_killed": _kill("prefill"),
    "prefill_killed_after_handover": _kill_prefill_after_handover,
    "decode_killed": _kill("decode"),
}


# Made for what is being handed over: the first requests arrive at once, and all of them are.
AT_THE_START = ("router_frozen", "prefill_killed_after_handover")
USUAL = [name for name in FAULTS if name not in AT_THE_START]


@contextmanager
def _later(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Raises at the end what `act` raised: a fault that was not injected must not be counted."""
    failures: list[Exception] = []

    def acting() -> None:
        try:
            act()
        except Exception as error:
            failures.append(error)

    timer = threading.Timer(seconds, acting)
    timer.start()
    try:
        yield
    finally:
        timer.join()
    if failures:
        raise failures[0]


def _until_whole(load: Load, deployment: RunningDeployment) -> None:
    """Waits until requests are answered and every worker gets some: one fault at a time."""
    end = time.monotonic() + RESTART_LIMIT_S
    while not (
        run_closed_loop(load.endpoint, load.specs[:1], 1, check=False)[0].ok
        and all_in_rotation(deployment.url)
    ):
        if time.monotonic() > end:
            raise LabError("故障之后部署没有恢复", remedy="看各个 worker 和路由的日志")
        time.sleep(1.0)


def _series(name: str, found: Sequence[Outcome]) -> Iterator[Series]:
    for figure, unit in (("answered", ""), ("lost", ""), ("broken_off", ""), ("silent", ""),
                         ("wrong", ""), ("slowest_s", "s"), ("expired", ""),
                         ("failed_reads", "")):  # fmt: skip
        values = [float(getattr(each, figure)) for each in found]
        yield Series(figure, unit, values, {"fault": name})
