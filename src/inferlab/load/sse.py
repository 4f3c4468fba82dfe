"""Reading an OpenAI-compatible event stream by byte searches; JSON is parsed only at its end.

Token counts come from the `usage` block. With `continuous_usage_stats` (vLLM, SGLang) each chunk
carries the running count and the tokens of a chunk are exact. Otherwise the final count is spread
evenly over the chunks that carried text.

A quote inside a JSON string is escaped, so `"completion_tokens"` followed by a colon can only be a
key, whatever the model wrote.
"""

import json
import re
from itertools import pairwise
from typing import Any

USAGE_KEY = b'"completion_tokens":'
_DONE = (b"data: [DONE]", b"data:[DONE]")
_COUNT = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_PLAIN_COUNT = re.compile(USAGE_KEY + rb"(\d+)")
_NO_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_TEXT = re.compile(
    rb'"(?:text|content|reasoning_content|reasoning|arguments)"\s*:\s*"(?!")', re.ASCII
)
_ERROR = re.compile(rb'"error"\s*:|"object"\s*:\s*"error"')


class StreamReader:
    """Collects arrival times and token counts of one stream.

    Args:
        keep_lines: keep every event, so that `text()` works afterwards.
    """

    __slots__ = (
        "_last",
        "_lines",
        "_parsed_last",
        "_tail",
        "done",
        "error",
        "has_counts",
        "times",
        "tokens",
        "total",
    )

    def __init__(self, keep_lines: bool = False) -> None:
        self.times: list[float] = []
        self.tokens: list[int] = []
        self.total = 0
        self.done = False
        self.has_counts = False
        self.error = ""
        self._last: list[bytes] = [b"", b""]
        self._parsed_last: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._lines: list[bytes] | None = [] if keep_lines else None
        self._tail = b""

    def feed(self, data: bytes, now: float) -> None:
        """Takes body bytes that arrived at `now`."""
        if self._tail:
            data, self._tail = self._tail + data, b""
        if data.find(b"\n") == len(data) - 2 and data.startswith(b"data:"):
            self._event(data, now)
            return
        if not data.endswith(b"\n"):
            end = data.rfind(b"\n") + 1
            data, self._tail = data[:end], data[end:]
        for line in data.split(b"\n"):
            if line.startswith(b"data:"):
                self._event(line, now)

    def feed_many(self, pieces: list[bytes], times: list[float]) -> None:
        """Takes body pieces with their times; cheap when each is one event, as usual."""
        if len(pieces) < 2 or not self._whole_events(pieces, times):
            for data, now in zip(pieces, times, strict=True):
                self.feed(data, now)

    def _whole_events(self, pieces: list[bytes], times: list[float]) -> bool:
        """Reads pieces that are one event with a running count each; False when they are not.

        Every piece ends an event and there are as many `data:` and counts as pieces: whatever is
        different (an error, the usage block, a text with `data:` in it) leaves this path.
        """
        number = len(pieces)
        if not self.has_counts or self._tail or self._lines is not None:
            return False
        if [1 for piece in pieces if piece[-2:] != b"\n\n"]:
            return False
        joined = b"".join(pieces)
        counts = list(map(int, _PLAIN_COUNT.findall(joined)))
        if joined.count(b"data:") != number or len(counts) != number:
            return False
        steps = [b - a for a, b in pairwise((self.total, *counts))]
        if min(steps) <= 0:
            return False
        self.tokens += steps
        self.times += times
        self.total = counts[-1]
        self._last = pieces[-2:]
        return True

    def _event(self, line: bytes, now: float) -> None:
        if line.startswith(_DONE):
            self.done = True
            return
        if b'"choices"' not in line and _ERROR.search(line):
            self.error = self.error or error_text(line[5:])
        self._last[0], self._last[1] = self._last[1], line
        if self._lines is not None:
            self._lines.append(line)
        total = _running_count(line)
        if total >= 0:
            self._counted(total, line, now)
        elif _TEXT.search(line):
            self.times.append(now)
            self.tokens.append(0)

    def _counted(self, total: int, line: bytes, now: float) -> None:
        grown, self.total = total - self.total, total
        if grown <= 0 or not (self.has_counts or not _NO_CHOICE.search(line)):
            return
        if self.has_counts or not self.times:
            self.has_counts = True
            self.times.append(now)
            self.tokens.append(grown)
        elif _TEXT.search(line):
            self.times.append(now)
            self.tokens.append(0)

    def usage(self) -> dict[str, Any] | None:
        """The final usage block; None when the stream ended without one.

        Final means after the last choice, or on the event that carries the finish reason: the
        running usage of a stream that broke off is not final.
        """
        event = self._endings()[1]
        usage = event.get("usage")
        if not isinstance(usage, dict) or "completion_tokens" not in usage:
            return None
        return usage if not event.get("choices") or self.finish_reason() else None

    def _endings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last two events, parsed once; only asked for when the stream has ended."""
        if self._parsed_last is None:
            self._parsed_last = (_parsed(self._last[0]), _parsed(self._last[1]))
        return self._parsed_last

    def finish_reason(self) -> str:
        """Why the model stopped (`length`, `stop`, …); empty when the stream did not say."""
        for event in reversed(self._endings()):
            for choice in event.get("choices") or []:
                if choice.get("finish_reason"):
                    return str(choice["finish_reason"])
        return ""

    def chunk_tokens(self, total: int) -> tuple[int, ...]:
        """Tokens of each chunk; `total` is spread evenly when the server gave no running count."""
        if self.has_counts or not self.times:
            return tuple(self.tokens)
        base, rest = divmod(total, len(self.times))
        first_extra = len(self.times) - rest
        return tuple(base + (i >= first_extra) for i in range(len(self.times)))

    def text(self) -> str:
        """The answer's text, when events were kept."""
        parts: list[str] = []
        for line in self._lines or []:
            for choice in _parsed(line).get("choices") or []:
                delta = choice.get("delta") or {}
                parts.append(choice.get("text") or delta.get("content") or "")
        return "".join(parts)


def _running_count(line: bytes) -> int:
    """The count of generated tokens in one event; -1 when it has none."""
    at = line.find(USAGE_KEY)
    if at < 0:
        return -1 if b'"completion_tokens"' not in line else _searched_count(line)
    digits = line[at + len(USAGE_KEY) : line.find(b"}", at)]
    return int(digits) if digits.isdigit() else _searched_count(line)


def _searched_count(line: bytes) -> int:
    found = _COUNT.search(line)
    return int(found[1]) if found else -1


def error_text(body: bytes | str) -> str:
    """The message inside an OpenAI-style error, or the start of the body as it is."""
    raw = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        content = json.loads(raw)
    except ValueError:
        return " ".join(raw.split())[:300]
    if not isinstance(content, dict):
        return str(content)[:300]
    inner = content.get("error", content)
    if isinstance(inner, dict):
        inner = inner.get("message") or inner.get("detail") or inner
    return str(inner)[:300] if inner else ""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line[5:]) if line else {}
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
