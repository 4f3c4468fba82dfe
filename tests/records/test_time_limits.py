"""What ends a recording from outside."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from inferlab.records.time_limits import terminated_like_interrupted


@pytest.fixture
def ignoring():
    """Ignores signals; what they did before comes back."""
    before: dict[int, Any] = {}

    def ignore(number: int) -> None:
        before[number] = signal.signal(number, signal.SIG_IGN)

    yield ignore
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_script_runs_in_the_background_can_be_ended(
    number: int, ignoring: Callable[[int], None]
):
    ignoring(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as it was"


def test_under_nohup_a_closed_terminal_ends_nothing(ignoring: Callable[[int], None]):
    ignoring(signal.SIGHUP)
    with terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_closed_terminal_ends_it_otherwise():
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGHUP)
