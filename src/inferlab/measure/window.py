"""Which part of a run counts.

The rule: the first tenth of the scheduled time (or the ramp, where one was asked for that is
longer) is warm-up, and what comes after the last scheduled time is drain. Latencies are those of
all requests *scheduled* inside the window, also when they end in the drain: leaving out the slow
ones that had not ended would flatter. Throughput counts what *arrived* inside the window, goodput
what *ended* in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferlab.errors import LabError
from inferlab.load.samples import RequestSample

WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a run, in seconds after its start; the end is not included."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s

    def __contains__(self, at_s: float) -> bool:
        return self.start_s <= at_s < self.end_s


def steady_window(samples: Sequence[RequestSample], *, warm_up: float = WARM_UP_SHARE) -> Window:
    """The window by the rule: without the first `warm_up` share, and without the drain.

    Raises:
        LabError: fewer than two requests, or all of them scheduled at one moment.
    """
    times = [sample.scheduled_s for sample in samples]
    if len(times) < 2 or max(times) <= min(times):
        raise LabError("请求太少，划不出稳态窗口", remedy="加长测量，或不剔除预热")
    start, end = min(times), max(times)
    return Window(start + warm_up * (end - start), end)


def whole_window(samples: Sequence[RequestSample]) -> Window:
    """From the first scheduled time to just after the last end."""
    if not samples:
        return Window(0.0, 0.0)
    start = min(sample.scheduled_s for sample in samples)
    return Window(start, float(np.nextafter(max(s.finished_s for s in samples), np.inf)))


def tokens_arrived(samples: Sequence[RequestSample], window: Window) -> int:
    """Generated tokens that arrived inside the window."""
    return sum(
        tokens
        for sample in samples
        for at, tokens in zip(sample.chunk_s, sample.chunk_tokens, strict=True)
        if at in window
    )


def mean_in_flight(samples: Sequence[RequestSample], window: Window) -> float:
    """Mean number of requests between schedule and end: waiting in the client counts."""
    starts = np.array([sample.scheduled_s for sample in samples])
    ends = np.array([sample.finished_s for sample in samples])
    overlap = np.minimum(ends, window.end_s) - np.maximum(starts, window.start_s)
    return float(np.clip(overlap, 0, None).sum() / window.duration_s)
