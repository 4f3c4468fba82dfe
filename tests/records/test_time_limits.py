"""What ends a recording from outside."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from inferlab.records.time_limits import terminated_like_interrupted


@pytest.fixture
def doing():
    """Sets what signals do; what they did before comes back, under `nohup` nothing."""
    before: dict[int, Any] = {}

    def set_to(number: int, action: signal.Handlers) -> None:
        before[number] = signal.signal(number, action)

    yield set_to
    for number, handler in before.items():
        signal.signal(number, handler)


Doing = Callable[[int, signal.Handlers], None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_script_runs_in_the_background_can_be_ended(number: int, doing: Doing):
    doing(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "as it was"


def test_under_nohup_a_closed_terminal_ends_nothing(doing: Doing):
    doing(signal.SIGHUP, signal.SIG_IGN)
    with terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_closed_terminal_ends_it_otherwise(doing: Doing):
    doing(signal.SIGHUP, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), terminated_like_interrupted():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
