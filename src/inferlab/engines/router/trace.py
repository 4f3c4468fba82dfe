"""What happened to each request: one line of JSON a request, and the counts of all."""

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("inferlab.router")


@dataclass(slots=True)
class Trace:
    """The path of one request. Times are milliseconds since its arrival.

    Args:
        id: its id; workers see it with the number of the attempt behind it.
        path: the route.
        prefill: prefill worker of the last attempt; None with plain replicas.
        decode: decode worker, or replica, of the last attempt.
        attempts: attempts begun.
        prefill_ms: when prefill of the last attempt answered.
        first_event_ms: when the first event was there; None for an answer in one piece.
        outcome: ok, rejected (4xx), failed (nothing was sent), deadline (the same, too late), cut
            (lost after the first token), engine_error (an error event of the engine in
            mid-stream), client_gone.
        reasons: why attempts failed.
    """

    id: str
    path: str
    prefill: str | None = None
    decode: str | None = None
    attempts: int = 0
    prefill_ms: float | None = None
    first_event_ms: float | None = None
    outcome: str = "failed"
    reasons: list[str] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)

    def begin(self, prefill: str | None, decode: str) -> None:
        """Another attempt, on these workers."""
        self.attempts += 1
        self.prefill, self.decode, self.prefill_ms = prefill, decode, None

    def ms(self) -> float:
        """Milliseconds since the arrival."""
        return round((time.monotonic() - self.arrived) * 1e3, 2)

    def headers(self) -> dict[str, str]:
        """The path so far, as response headers."""
        shown = {"X-Request-Id": self.id, "X-Attempts": str(self.attempts)}
        if self.prefill is not None:
            shown["X-Prefill"] = self.prefill
        if self.decode is not None:
            shown["X-Decode"] = self.decode
        return shown

    def log(self) -> dict[str, Any]:
        """Writes the line, and gives it back; `at` is Unix time of the arrival, in seconds."""
        total_ms = self.ms()
        line: dict[str, Any] = {"at": round(time.time() - total_ms / 1e3, 3), "id": self.id}
        line |= {"path": self.path, "prefill": self.prefill, "decode": self.decode}
        line |= {"attempts": self.attempts, "prefill_ms": self.prefill_ms}
        line |= {"first_event_ms": self.first_event_ms, "total_ms": total_ms}
        line |= {"outcome": self.outcome} | ({"reasons": self.reasons} if self.reasons else {})
        logger.info("%s", json.dumps(line, ensure_ascii=False))
        return line


@dataclass(slots=True)
class Counts:
    """Counts since the start.

    Args:
        requests: arrived.
        retries: attempts beyond the first.
        failed: ended with a 502, 503 or 504 of the router.
        cut: lost after the first token.
        in_flight: being answered now.
    """

    requests: int = 0
    retries: int = 0
    failed: int = 0
    cut: int = 0
    in_flight: int = 0
