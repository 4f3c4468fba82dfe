"""Time limits of measuring: when to begin nothing more, and what ends what hangs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

GRACE_S = 90.0


@dataclass(frozen=True)
class Limits:
    """When all must have ended, on the monotonic clock."""

    end_s: float

    @classmethod
    def of(cls, minutes: float) -> "Limits":
        """From now on."""
        return cls(time.monotonic() + minutes * 60)

    @property
    def left_s(self) -> float:
        """Until the end; negative after it."""
        return self.end_s - time.monotonic()

    def deadline_s(self, minutes: float, spare_s: float = 0.0) -> float:
        """When an experiment of so many minutes must have ended its last run: twice its time."""
        return min(self.end_s, time.monotonic() + 120 * minutes + 60 + spare_s)


class Watchdog:
    """Interrupts the main thread at a moment, as Ctrl-C would: nothing may hang for ever.

    Args:
        at_s: on the monotonic clock; it waits `GRACE_S` longer.
    """

    def __init__(self, at_s: float) -> None:
        self.fired = False
        self._timer = threading.Timer(max(1.0, at_s + GRACE_S - time.monotonic()), self._fire)
        self._timer.daemon = True

    def _fire(self) -> None:
        self.fired = True
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end this as Ctrl-C does, so that no engine is left behind.

    Under `nohup` SIGHUP stays ignored. What a script starts in the background has Ctrl-C ignored,
    and nothing could end it: here it is not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in (*numbers, signal.SIGINT)}
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (each for each in numbers if before[each] is not signal.SIG_IGN):
        signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
