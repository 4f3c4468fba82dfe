"""The workers: which are alive, what each is doing, and who takes the next request."""

import asyncio
import contextlib
import errno
import itertools
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from aiohttp import ClientConnectorError, ClientError, ClientSession

# At least; a longer pause between checks gives as much time for the answer.
HEALTH_TIMEOUT_S = 2.0
# A busy engine may be slow to answer: only this many silent checks in a row count as frozen.
SILENT_CHECKS = 3
# At most so long a request that finds nobody in rotation waits for those that are out of it.
LOOK_AGAIN_S = 1.0
# A worker that has just failed is picked last, or its short queue would attract every request.
COOLING_S = 5.0


@dataclass(slots=True, eq=False)
class Worker:
    """One engine and what is known of it.

    Args:
        url: its address, without a path.
        problem: why it is out of rotation; empty while it is healthy.
        in_flight: requests that it is working on for this router.
        requests: attempts that it was given.
        failures: attempts that failed on it.
        silent: health checks in a row without an answer, reset by any byte it sends.
        waits: time limits of the attempts that wait for it.
    """

    url: str
    problem: str = "尚未检查"
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    silent: int = 0
    failed_at: float = float("-inf")
    turn: int = 0
    waits: set[asyncio.Timeout] = field(default_factory=set)
    checking: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether it may be given requests."""
        return not self.problem

    def found(self, problem: str) -> None:
        """A health check was answered, or refused."""
        self.silent, self.problem = 0, problem

    def found_silent(self) -> None:
        """A health check was not answered; after some of them the waiting attempts move on."""
        self.silent += 1
        frozen = self.silent >= SILENT_CHECKS
        if frozen or not self.healthy:
            self.problem = "没有响应"
        if not frozen:
            return
        for wait in self.waits:
            with contextlib.suppress(RuntimeError):  # it has expired by itself
                wait.reschedule(asyncio.get_running_loop().time())

    def failed(self) -> None:
        """An attempt failed on it."""
        self.failures += 1
        self.failed_at = time.monotonic()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While it works on an attempt."""
        self.requests += 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


@contextlib.asynccontextmanager
async def within(when: float, *workers: Worker) -> AsyncIterator[asyncio.Timeout]:
    """A time limit that also ends as soon as one of the workers is found frozen.

    Args:
        when: on the clock of the event loop, which is `time.monotonic()`.
        workers: who is waited for.

    Raises:
        TimeoutError: the limit has passed, or a worker is frozen.
    """
    async with asyncio.timeout_at(when) as timer:
        for worker in workers:
            worker.waits.add(timer)
        try:
            yield timer
        finally:
            for worker in workers:
                worker.waits.discard(timer)


def refused(error: BaseException) -> bool:
    """Whether nobody listens at the address: nothing was sent, and the worker is surely gone."""
    return isinstance(error, ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED


def describe(error: BaseException) -> str:
    """A few words on a failed exchange."""
    if isinstance(error, TimeoutError):
        return "超时"
    if isinstance(error, ClientConnectorError):
        return "连不上"
    return "连接断开"


class Fleet:
    """All workers. Without prefill workers, `decode` holds plain replicas that do both."""

    def __init__(
        self,
        session: ClientSession,
        prefill: Iterable[str],
        decode: Iterable[str],
        health_s: float,
    ) -> None:
        self.prefill = [Worker(url) for url in prefill]
        self.decode = [Worker(url) for url in decode]
        self._session, self._health_s = session, health_s
        self._turns = itertools.count(1)

    @property
    def workers(self) -> list[Worker]:
        """Prefill first."""
        return self.prefill + self.decode

    def roles(self) -> dict[str, list[Worker]]:
        """The pools by what they do: prefill and decode, or serve."""
        if self.prefill:
            return {"prefill": self.prefill, "decode": self.decode}
        return {"serve": self.decode}

    @property
    def ready(self) -> bool:
        """Whether a request can be served now."""
        return all(any(worker.healthy for worker in pool) for pool in self.roles().values())

    def pick(self, pool: Sequence[Worker], tried: Collection[Worker]) -> Worker | None:
        """The healthy worker with the least to do, in turn; one not yet tried if there is any."""
        healthy = [worker for worker in pool if worker.healthy]
        choice = [worker for worker in healthy if worker not in tried] or healthy
        if not choice:
            return None
        cold = time.monotonic() - COOLING_S
        best = min(choice, key=lambda w: (w.failed_at > cold, w.in_flight, w.turn))
        best.turn = next(self._turns)
        return best

    async def watch(self) -> None:
        """Checks every worker again and again; one that hangs does not delay the others."""

        async def watch_one(worker: Worker) -> None:
            while True:
                await asyncio.sleep(self._health_s)
                await self.check(worker)

        await asyncio.gather(*map(watch_one, self.workers))

    async def check(self, worker: Worker) -> None:
        """Asks `/health` once."""
        try:
            async with asyncio.timeout(max(HEALTH_TIMEOUT_S, self._health_s)):
                async with self._session.get(f"{worker.url}/health") as answer:
                    status = answer.status
            worker.found("" if status == 200 else f"/health 返回 {status}")
        except TimeoutError:
            worker.found_silent()
        except (ClientError, OSError) as error:
            worker.found(describe(error))

    async def look_again(self) -> None:
        """Checks those out of rotation now: one may have come back since its last regular check.

        Ends once a request can be served; one that is frozen does not hold it up.
        """
        out = [worker for worker in self.workers if not worker.healthy]
        for worker in out:
            self.suspect(worker)
        checks = {worker.checking for worker in out if worker.checking}
        end = time.monotonic() + LOOK_AGAIN_S
        while checks and not self.ready and (left := end - time.monotonic()) > 0:
            _, checks = await asyncio.wait(
                checks, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )

    def suspect(self, worker: Worker) -> None:
        """Checks a worker that has just failed, beside the regular rounds."""
        if worker.checking is None or worker.checking.done():
            worker.checking = asyncio.create_task(self.check(worker))
