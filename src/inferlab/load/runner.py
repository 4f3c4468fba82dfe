"""Running a load: closed loop for notebooks and experiments, from plain or async code."""

import asyncio
import contextlib
import selectors
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.samples import RequestSample, RequestSpec

T = TypeVar("T")
OnSample = Callable[[RequestSample], None]


def run_closed_loop(
    endpoint: Endpoint,
    specs: Sequence[RequestSpec],
    concurrency: int,
    *,
    check: bool = True,
    on_sample: OnSample | None = None,
) -> list[RequestSample]:
    """Keeps `concurrency` requests in flight until all specs were sent; samples in spec order.

    A request counts from the moment its place became free. Works in scripts and inside Jupyter.

    Args:
        endpoint: the server.
        specs: one a request.
        concurrency: requests in flight.
        check: try the endpoint first, to fail with one clear line.
        on_sample: called with each sample as its request ends.

    Raises:
        LabError: the endpoint cannot be used (wrong address, key, model, no streaming).
    """
    return run_async(_closed_loop(endpoint, specs, concurrency, check, on_sample))


async def _closed_loop(
    endpoint: Endpoint, specs: Sequence[RequestSpec], concurrency: int, check: bool,
    on_sample: OnSample | None,
) -> list[RequestSample]:  # fmt: skip
    if check:
        from inferlab.load.probe import check_endpoint

        endpoint = await check_endpoint(endpoint)
    client, samples = Client(endpoint), []
    work = iter(enumerate(specs))

    async def worker() -> None:
        for index, spec in work:
            sample = await client.send(spec, index=index)
            samples.append(sample)
            if on_sample is not None:
                on_sample(sample)

    await asyncio.gather(*(worker() for _ in range(max(1, concurrency))))
    client.close()
    return sorted(samples, key=lambda sample: sample.index)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, in a thread of its own when this one has a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            return runner.run(work)
    return _in_thread(work)


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    result: list[T] = []
    problem: list[BaseException] = []

    def target() -> None:
        try:
            with asyncio.Runner(loop_factory=precise_loop) as runner:
                result.append(runner.run(work))
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=target, name="inferlab-load", daemon=True)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return result[0]


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are exact to some 0.1 ms.

    epoll rounds timeouts up to whole milliseconds, which would make every scheduled send late.
    """
    if sys.platform == "linux":
        return asyncio.SelectorEventLoop(_PreciseSelector())
    return asyncio.new_event_loop()


if sys.platform == "linux":
    import select

    class _PreciseSelector(selectors.EpollSelector):
        """epoll behind select(2), whose timeout is in microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                descriptor = self.fileno()
                ready = select.select((descriptor,), (), (), timeout)[0]
                if not ready:
                    return []
                timeout = 0
            return super().select(timeout)


def raise_file_limit() -> None:
    """Lifts the soft limit of open files to the hard one: a stream needs a socket each."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
