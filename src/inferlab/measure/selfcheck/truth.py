"""What the null server's log says about a run, in the terms of the client's samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from inferlab.load.null_process import NullProcess
from inferlab.load.runner import RunResult

FAILED_ENDS = {
    "fail_500": "http_error",
    "cut": "cut",
    "truncated": "truncated",
    "no_usage": "no_usage",
    "error_event": "error_event",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, the bar, and whether it was met."""

    name: str
    value: str
    bar: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """One request in the server's log; times in seconds on the clock of the client's process."""

    arrived: float
    chunks: tuple[float, ...]
    ended: float
    end: str

    @property
    def ttft_ms(self) -> float:
        """From the request's arrival at the server to its writing of the first chunk."""
        return (self.chunks[0] - self.arrived) * 1e3

    @property
    def gaps_ms(self) -> list[float]:
        """Between the writing of successive chunks."""
        return [(b - a) * 1e3 for a, b in pairwise(self.chunks)]


def truth_of(server: NullProcess) -> dict[str, Truth]:
    """The log by `user`; the client's own check request has none and is left out."""
    return {entry["user"]: _truth(entry) for entry in server.log() if entry["user"]}


def _truth(entry: dict[str, Any]) -> Truth:
    chunks = tuple(entry["chunks"])
    return Truth(entry["arrived"], chunks, entry["ended"], entry["end"])


def itl_errors_ms(run: RunResult, truth: dict[str, Truth]) -> np.ndarray:
    """Reported gap minus true gap, chunk by chunk, of the complete answers."""
    errors: list[float] = []
    for sample in run.samples:
        if sample.ok:
            gaps = truth[str(sample.index)].gaps_ms
            errors += [a - b for a, b in zip(sample.chunk_gap_ms, gaps, strict=True)]
    return np.array(errors)


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(np.asarray(values), [50, 99]).tolist()
    return p50, p99


class OtherLoad:
    """Cores that other processes used meanwhile; Linux only, elsewhere unknown (None)."""

    def __init__(self) -> None:
        self._start = _busy_and_own()

    def cores(self, wall_s: float) -> float | None:
        """Mean number of cores used by others since the start."""
        now = _busy_and_own()
        if self._start is None or now is None or wall_s <= 0:
            return None
        return max(0.0, (now[0] - self._start[0] - (now[1] - self._start[1])) / wall_s)


def _busy_and_own() -> tuple[float, float] | None:
    """CPU seconds: of the whole machine, and of this process with its ended children."""
    import os

    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq = (int(field) / 100 for field in fields)
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return user + nice + system + irq + softirq, ours
