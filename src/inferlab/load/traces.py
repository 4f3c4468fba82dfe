"""Recorded loads: JSONL with prompts, and the published Azure, BurstGPT and Mooncake traces.

Published traces give times and lengths, no text: prompts are made of token ids. Mooncake's block
hashes are kept: equal hashes become equal tokens, so the prefix reuse of the trace is real.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, Literal

from inferlab.errors import UsageError
from inferlab.load.arrivals import TimedRequest
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Source

MOONCAKE_BLOCK_TOKENS = 512
Format = Literal["jsonl", "azure", "burstgpt", "mooncake"]


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How much of a trace is played, and how.

    Args:
        limit: at most so many requests from the start; 0 for all.
        duration_s: at most so long a part of the trace, before `speed`; 0 for all.
        speed: played so many times as fast.
        max_prompt_tokens: longer requests are left out (a shortened one would be another load).
        max_output_tokens: longer answers are cut to this; 0 for no limit.
        vocabulary: of the token ids made up.
        seed: of the token ids.
    """

    limit: int = 0
    duration_s: float = 0.0
    speed: float = 1.0
    max_prompt_tokens: int = 0
    max_output_tokens: int = 0
    vocabulary: int = 2048
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    at_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    prompt: Any = None


def load_trace(
    path: Path, options: TraceOptions | None = None, format: Format | None = None
) -> list[TimedRequest]:
    """Reads a trace, moved to start at 0. The format is recognised by the first line.

    Formats: JSONL with `prompt` or `messages` (and optional `timestamp` in seconds,
    `max_tokens`); Azure 2023 and 2024 CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`); BurstGPT
    CSV (`Timestamp,…,Request tokens,Response tokens,…`, failed requests with 0 tokens left out);
    Mooncake JSONL (`timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512 tokens).

    Raises:
        UsageError: the file is missing, of no known format, or has a broken line (named).
    """
    options = options or TraceOptions()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = _READERS[format or _recognise(first, path)](_numbered(file, path))
            return _timed(_selected(rows, options), options)
    except OSError as error:
        raise UsageError(f"读不了 {path}（{error.strerror}）", remedy="检查路径") from None


def _recognise(first: str, path: Path) -> Format:
    if first.startswith("TIMESTAMP,ContextTokens"):
        return "azure"
    if first.startswith("Timestamp,") and "Request tokens" in first:
        return "burstgpt"
    if first.lstrip().startswith("{"):
        return "mooncake" if '"input_length"' in first else "jsonl"
    raise UsageError(
        f"认不出 {path} 的格式（首行 {first.strip()[:60]!r}）",
        remedy="支持 JSONL、Azure、BurstGPT、Mooncake",
    )


class _Lines:
    """The lines of a file, with the number of the last one for messages."""

    def __init__(self, lines: Iterable[str], path: Path) -> None:
        self._lines, self._path, self.number = iter(lines), path, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number += 1
            yield line

    def broken(self, error: Exception) -> UsageError:
        """The error for the line just read."""
        return UsageError(f"{self._path} 第 {self.number} 行有误（{error}）", remedy="修正这一行")


def _numbered(lines: Iterable[str], path: Path) -> _Lines:
    return _Lines(lines, path)


def _csv_rows(lines: _Lines, convert: Callable[[dict[str, str]], _Row]) -> Iterator[_Row]:
    for record in csv.DictReader(lines):
        try:
            yield convert(record)
        except (ValueError, KeyError, TypeError) as error:
            raise lines.broken(error) from None


def _json_rows(lines: _Lines, convert: Callable[[dict[str, Any]], _Row]) -> Iterator[_Row]:
    for line in lines:
        if not line.strip():
            continue
        try:
            yield convert(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise lines.broken(error) from None


def _azure(lines: _Lines) -> Iterator[_Row]:
    def convert(record: dict[str, str]) -> _Row:
        at = datetime.fromisoformat(record["TIMESTAMP"])
        # Naive and aware stamps alike count from one epoch; only differences are used.
        return _Row(
            (at - datetime(2023, 1, 1, tzinfo=at.tzinfo)).total_seconds(),
            int(record["ContextTokens"]),
            int(record["GeneratedTokens"]),
        )

    return _csv_rows(lines, convert)


def _burstgpt(lines: _Lines) -> Iterator[_Row]:
    def convert(record: dict[str, str]) -> _Row:
        prompt, output = int(record["Request tokens"]), int(record["Response tokens"])
        return _Row(float(record["Timestamp"]), prompt, output)

    return _csv_rows(lines, convert)


def _mooncake(lines: _Lines) -> Iterator[_Row]:
    def convert(record: dict[str, Any]) -> _Row:
        return _Row(
            float(record["timestamp"]) / 1e3,
            int(record["input_length"]),
            int(record["output_length"]),
            tuple(map(int, record.get("hash_ids") or ())),
        )

    return _json_rows(lines, convert)


def _jsonl(lines: _Lines) -> Iterator[_Row]:
    def convert(record: dict[str, Any]) -> _Row:
        prompt = record.get("messages") or record.get("prompt")
        if not prompt:
            raise ValueError("no prompt or messages")
        tokens = int(record.get("max_tokens") or record.get("output_tokens") or 128)
        at = record.get("timestamp", record.get("at_s", 0.0))
        return _Row(float(at), 1, tokens, prompt=prompt)

    return _json_rows(lines, convert)


_READERS: dict[str, Callable[[_Lines], Iterator[_Row]]] = {
    "azure": _azure,
    "burstgpt": _burstgpt,
    "mooncake": _mooncake,
    "jsonl": _jsonl,
}


def _selected(rows: Iterator[_Row], options: TraceOptions) -> list[_Row]:
    chosen: list[_Row] = []
    start: float | None = None
    for row in rows:
        start = row.at_s if start is None else start
        if options.duration_s and row.at_s - start >= options.duration_s:
            break
        too_long = 0 < options.max_prompt_tokens < row.prompt_tokens
        if row.prompt_tokens > 0 and row.output_tokens > 0 and not too_long:
            chosen.append(row)
        if options.limit and len(chosen) >= options.limit:
            break
    return sorted(chosen, key=lambda row: row.at_s)


def _timed(rows: list[_Row], options: TraceOptions) -> list[TimedRequest]:
    random = Random(options.seed)
    start = rows[0].at_s if rows else 0.0
    return [
        TimedRequest((row.at_s - start) / options.speed, _spec(row, options, random))
        for row in rows
    ]


def _spec(row: _Row, options: TraceOptions, random: Random) -> RequestSpec:
    output = min(row.output_tokens, options.max_output_tokens or row.output_tokens)
    if row.prompt is not None:
        return RequestSpec(row.prompt, max_tokens=output)
    return RequestSpec(_token_ids(row, options, random), max_tokens=output, ignore_eos=True)


def _token_ids(row: _Row, options: TraceOptions, random: Random) -> list[int]:
    source = Source(options.vocabulary)
    ids: list[int] = []
    for block in row.hash_ids:
        same = Random(f"{options.seed}/{block}")
        ids += map(int, source.draw(MOONCAKE_BLOCK_TOKENS, same))
    missing = row.prompt_tokens - len(ids)
    return ids[: row.prompt_tokens] + [int(t) for t in source.draw(max(0, missing), random)]
