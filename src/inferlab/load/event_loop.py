"""The event loop that a measurement runs in: exact timers, no garbage pauses, enough open files."""

import asyncio
import contextlib
import gc
import selectors
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from inferlab.open_files import raise_file_limit

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, in a thread of its own when this one has a running loop.

    Ctrl-C cancels the coroutine; what it returns after that is still given back.
    """
    raise_file_limit()
    with _no_garbage_pauses():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with asyncio.Runner(loop_factory=precise_loop) as runner:
                return runner.run(work)
        return _Thread(work).result()


class _Thread(threading.Thread):
    """Runs one coroutine in an event loop of its own (a notebook's thread has one already)."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        super().__init__(name="inferlab-load", daemon=True)
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._outcome: list[Any] = []
        self._problem: BaseException | None = None

    def run(self) -> None:
        """threading: the thread's body."""
        try:
            with asyncio.Runner(loop_factory=precise_loop) as runner:
                self._loop = runner.get_loop()
                self._outcome.append(runner.run(self._main()))
        except BaseException as error:
            self._problem = error

    async def _main(self) -> Any:
        self._task = asyncio.current_task()
        return await self._work

    def result(self) -> Any:
        """Starts, waits, and gives the result or raises what the coroutine raised."""
        self.start()
        try:
            self.join()
        except KeyboardInterrupt:
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
            self.join()
        if self._problem is not None:
            raise self._problem
        return self._outcome[0]


@contextlib.contextmanager
def _no_garbage_pauses() -> Iterator[None]:
    """A full collection takes tens of milliseconds in a notebook's heap: not during a run."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def waited_s() -> float | None:
    """Seconds that this thread was ready to run but had no CPU, since it began; Linux only.

    Source: second field of `/proc/<pid>/schedstat` (Linux, Documentation/scheduler/sched-stats).
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


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
        """epoll until shortly before a timer is due, then select(2), which counts microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None or timeout <= 0:
                return super().select(timeout)
            if timeout > 0.002:
                return super().select(timeout - 0.001)
            select.select((self.fileno(),), (), (), timeout)
            return super().select(0)
