"""Running a load: open loop, closed loop, conversations; from scripts and from notebooks.

Latency counts from the scheduled time, so a client that falls behind shows it. A run that is
interrupted, or whose server goes away, gives back what it measured and says why it stopped.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inferlab.errors import LabError
from inferlab.load.arrivals import TimedRequest
from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.event_loop import run_async, waited_s
from inferlab.load.probe import check_endpoint
from inferlab.load.samples import Message, RequestSample, RequestSpec, Status
from inferlab.load.workloads import Conversation

OnSample = Callable[[RequestSample], None]
DEAD_AFTER = 10
INTERRUPTED = "被 Ctrl-C 中断"
STARVED_SHARE = 0.05  # of a run's time; waiting comes in pieces, and 5 % moves a p99
AHEAD_S = 0.005


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run measured.

    `origin_s` is `time.perf_counter()` and `started_at` the Unix time at second 0 of the samples.
    `stopped` says in one line why the run ended early; empty for a whole run. `waited_s` is how
    long the client was ready to run but had no CPU: latency that the machine added, not the server;
    None where the system does not tell.
    """

    samples: list[RequestSample] = field(repr=False)
    origin_s: float
    started_at: float
    duration_s: float
    connections: int
    stopped: str = ""
    waited_s: float | None = None

    @property
    def starved(self) -> bool:
        """Whether the client waited for a CPU so long that its times say little."""
        return self.waited_s is not None and self.waited_s > STARVED_SHARE * self.duration_s

    @property
    def partial(self) -> bool:
        """Whether the run ended before its plan did."""
        return bool(self.stopped)

    def whole(self) -> list[RequestSample]:
        """The samples of a run that went to its end.

        Raises:
            KeyboardInterrupt: Ctrl-C ended it, which ends what it is part of as well.
            LabError: it stopped early for another reason.
        """
        if self.stopped == INTERRUPTED:
            raise KeyboardInterrupt
        if self.partial:
            raise LabError(f"测量没有做完：{self.stopped}", remedy="排除原因后重新运行")
        return self.samples


def all_answered(samples: Sequence[RequestSample]) -> Sequence[RequestSample]:
    """The samples, when each request got its whole answer.

    Raises:
        LabError: one did not; the first one's reason is told.
    """
    failed = [sample for sample in samples if not sample.ok or not sample.chunk_s]
    if failed:
        raise LabError(
            f"{len(failed)} 个请求失败（{failed[0].status}：{failed[0].error}）",
            remedy="看引擎日志",
        )
    return samples


def open_loop(
    endpoint: Endpoint, timed: Sequence[TimedRequest], *, max_in_flight: int = 0,
    check: bool = True, on_sample: OnSample | None = None,
) -> RunResult:  # fmt: skip
    """Sends each request when it is due, whatever became of those before it.

    Args:
        endpoint: the server.
        timed: requests with their times.
        max_in_flight: hold requests back above so many; the wait counts as latency. 0: no limit.
        check: try the endpoint first, to fail with one clear line.
        on_sample: called with each sample as its request ends.

    Raises:
        LabError: the endpoint cannot be used (wrong address, key, model, no streaming).
    """

    async def body(run: _Run) -> None:
        gate = asyncio.Semaphore(max_in_flight) if max_in_flight else None
        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(timed):
                request = run.client.endpoint.request(item.spec)
                await run.until(item.at_s - AHEAD_S)
                group.create_task(run.send(item.spec, index, item.at_s, request, gate))

    return run_async(_run(endpoint, body, check, on_sample))


def closed_loop(
    endpoint: Endpoint, specs: Iterable[RequestSpec], concurrency: int, *,
    duration_s: float | None = None, ramp_s: float = 0.0, check: bool = True,
    on_sample: OnSample | None = None, patience_s: float = 0.0,
) -> RunResult:  # fmt: skip
    """Keeps `concurrency` requests in flight: each place sends its next request at once.

    Latency counts from the moment the place became free, so this says what an engine does at a
    given concurrency, and nothing about users who do not wait for each other.

    Args:
        endpoint: the server.
        specs: one a request; may be endless when `duration_s` is given.
        concurrency: requests in flight.
        duration_s: start no request after so long.
        ramp_s: the places begin one after another over so long. Begun all at once with answers of
            one length, they stay in step: all prefill, then all decode, which no service sees.
        check: try the endpoint first, to fail with one clear line.
        on_sample: called with each sample as its request ends.
        patience_s: a place that was refused a connection waits so long before its next request,
            and the run goes on however often that happens. 0: the run ends when the server seems
            gone.

    Raises:
        LabError: the endpoint cannot be used (wrong address, key, model, no streaming).
    """
    work = iter(enumerate(specs))

    async def body(run: _Run) -> None:
        async def place(starts_s: float) -> None:
            if starts_s > 0:
                await asyncio.sleep(starts_s)
            for index, spec in work:
                request = run.client.endpoint.request(spec)
                due_s = run.client.now()
                if duration_s is not None and due_s >= duration_s:
                    return
                sample = await run.send(spec, index, due_s, request)
                if sample is None or sample.status is Status.CANCELLED:
                    return
                if patience_s and sample.status is Status.CONNECT_ERROR:
                    await asyncio.sleep(patience_s)

        run.gives_up = not patience_s
        async with asyncio.TaskGroup() as group:
            places = max(1, concurrency)
            for number in range(places):
                group.create_task(place(ramp_s * number / places))

    return run_async(_run(endpoint, body, check, on_sample))


def run_closed_loop(
    endpoint: Endpoint, specs: Sequence[RequestSpec], concurrency: int, *,
    check: bool = True, on_sample: OnSample | None = None,
) -> list[RequestSample]:  # fmt: skip
    """`closed_loop` for notebooks: the samples alone, in the order of the specs.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the run.
        LabError: the endpoint cannot be used, or the run stopped early.
    """
    return closed_loop(endpoint, specs, concurrency, check=check, on_sample=on_sample).whole()


def run_conversations(
    endpoint: Endpoint, chats: Sequence[Conversation], starts_s: Sequence[float], *,
    check: bool = True, on_sample: OnSample | None = None,
) -> RunResult:  # fmt: skip
    """Multi-turn chats: each turn carries the whole history with the model's own answers.

    A later turn is scheduled at the end of the answer before it plus the pause to think. A chat
    ends at its first failure. Samples are labelled `turn1`, `turn2`, …

    Args:
        endpoint: the server; for `completions` the history is sent as one text.
        chats: the conversations.
        starts_s: when each begins.
        check: try the endpoint first, to fail with one clear line.
        on_sample: called with each sample as its request ends.

    Raises:
        LabError: the endpoint cannot be used.
    """

    async def body(run: _Run) -> None:
        async with asyncio.TaskGroup() as group:
            for number, (chat, start) in enumerate(zip(chats, starts_s, strict=True)):
                group.create_task(_talk(run, chat, start, number * 1000))

    return run_async(_run(endpoint, body, check, on_sample))


async def _talk(run: "_Run", chat: Conversation, due: float, first_index: int) -> None:
    history: list[Message] = []
    if chat.system:
        history.append({"role": "system", "content": chat.system})
    for number, turn in enumerate(chat.turns):
        history.append({"role": "user", "content": turn})
        spec = _turn(run.client.endpoint, chat, history, number)
        request = run.client.endpoint.request(spec)
        await run.until(due - AHEAD_S)
        sample = await run.send(spec, first_index + number, due, request)
        if sample is None or not sample.ok:
            return
        history.append({"role": "assistant", "content": sample.text or ""})
        due = sample.finished_s + (chat.think_s[number] if number < len(chat.think_s) else 0.0)


def _turn(
    endpoint: Endpoint, chat: Conversation, history: list[Message], number: int
) -> RequestSpec:
    as_text = "".join(f"{message['content']}\n" for message in history)
    return RequestSpec(
        list(history) if endpoint.api == "chat" else as_text,
        max_tokens=chat.max_tokens,
        ignore_eos=chat.ignore_eos,
        label=f"turn{number + 1}",
        keep_text=True,
    )


async def _run(
    endpoint: Endpoint, body: Callable[["_Run"], Awaitable[None]], check: bool,
    on_sample: OnSample | None,
) -> RunResult:  # fmt: skip
    if check:
        endpoint = await check_endpoint(endpoint)
    run = _Run(Client(endpoint), on_sample)
    try:
        await body(run)
    except asyncio.CancelledError:
        run.stopped = run.stopped or INTERRUPTED
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        run.client.close()
    return run.result()


class _Run:
    """One run under way: collects samples, and stops when the server is gone."""

    def __init__(self, client: Client, on_sample: OnSample | None) -> None:
        self.client = client
        self.stopped = ""
        self.gives_up = True
        self._started_at = time.time() - client.now()
        self._on_sample = on_sample
        self._samples: list[RequestSample] = []
        self._unreachable = 0
        self._waited_s = waited_s()
        self._main = asyncio.current_task()

    async def until(self, at_s: float) -> None:
        """Sleeps until about second `at_s` of the run."""
        delay = at_s - self.client.now()
        if delay > 0:
            await asyncio.sleep(delay)

    async def send(
        self, spec: RequestSpec, index: int, due_s: float, request: bytes,
        gate: asyncio.Semaphore | None = None,
    ) -> RequestSample | None:  # fmt: skip
        """Sends one request and keeps its sample; None when the run ended before it was sent."""
        if gate is not None:
            await gate.acquire()
        try:
            sample = await self.client.send(spec, scheduled_s=due_s, index=index, request=request)
        finally:
            if gate is not None:
                gate.release()
        self._keep(sample)
        return sample

    def _keep(self, sample: RequestSample) -> None:
        self._samples.append(sample)
        if self._on_sample is not None:
            self._on_sample(sample)
        gone = sample.status is Status.CONNECT_ERROR
        self._unreachable = self._unreachable + 1 if gone else 0
        if not self.gives_up or self._unreachable < DEAD_AFTER:
            return
        if not self.stopped and self._main is not None:
            self.stopped = f"连续 {DEAD_AFTER} 个请求连不上服务（{sample.error}），引擎可能已退出"
            self._main.cancel()

    def result(self) -> RunResult:
        """What was measured so far."""
        return RunResult(
            samples=sorted(self._samples, key=lambda sample: sample.index),
            origin_s=self.client.origin,
            started_at=self._started_at,
            duration_s=self.client.now(),
            connections=self.client.connections_opened,
            stopped=self.stopped,
            waited_s=self._waited(),
        )

    def _waited(self) -> float | None:
        before, now = self._waited_s, waited_s()
        return None if before is None or now is None else now - before
