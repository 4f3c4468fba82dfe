"""The null server: answers like an engine with scripted timing, to prove the client against.

    python -m inferlab.load.null_server --port 8100 --ttft_ms 200 --itl_ms 20 --slots 4

It keeps its own log of truth: for every request when it arrived, when each chunk was written and
how it ended, in seconds of the system's monotonic clock (`time.perf_counter`), which a client on
the same machine shares. `GET /null/log` gives it as JSON; `--log` also writes it at the end.
"""

import argparse
import asyncio
import gc
import json
import math
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field, fields, replace
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Any

from inferlab.load import null_script as script_of
from inferlab.load.event_loop import precise_loop
from inferlab.load.null_script import Ask, Fate, Script
from inferlab.load.sockets import bundle_s
from inferlab.open_files import raise_file_limit

# Of a step: what is due at its very end must not fall into the next by rounding.
_SAME_STEP = 1e-6


@dataclass(slots=True, eq=False)
class Stream:
    """One request being answered, and its truth."""

    connection: "NullConnection"
    ask: Ask
    fate: Fate
    arrived: float
    pieces: tuple[bytes, ...]
    started: float = 0.0
    chunk_times: list[float] = field(default_factory=list)
    ended: float = 0.0
    end: str = ""

    def truth(self) -> dict[str, Any]:
        """The log entry; times in seconds of `time.perf_counter()`."""
        return {
            "user": self.ask.user,
            "arrived": self.arrived,
            "started": self.started,
            "chunks": self.chunk_times,
            "ended": self.ended,
            "end": self.end,
        }


class NullServer:
    """Slots, the queue for them, the timers and the log.

    One heap of due times serves all streams: a timer object for every chunk would cost more than
    writing it.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.random = Random(script.seed)
        self._gap_s = script.chunk_tokens * script.itl_ms / 1e3
        self._step_s = script.step_ms / 1e3
        self.log: list[Stream] = []
        self._queue: deque[Stream] = deque()
        self._active = 0
        self._due: list[tuple[float, int, Stream]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, connection: "NullConnection", ask: Ask) -> Stream:
        """Takes a request in: into a slot, or into the line."""
        arrived = time.perf_counter()
        fate = script_of.draw_fate(self.script, ask, self.random)
        stream = Stream(connection, ask, fate, arrived, self._pieces(ask, fate))
        self.log.append(stream)
        if fate.end == "fail_500":
            connection.write(script_of.error_response("500 Internal Server Error", "scripted"))
            self._finish(stream, "fail_500", held_slot=False)
        elif self.script.slots and self._active >= self.script.slots:
            self._queue.append(stream)
        else:
            self._start(stream)
        return stream

    def abandon(self, stream: Stream) -> None:
        """The client went away."""
        if stream.end:
            return
        waiting = not stream.started
        if waiting:
            self._queue.remove(stream)
        self._finish(stream, "abandoned", held_slot=not waiting)

    def _pieces(self, ask: Ask, fate: Fate) -> tuple[bytes, ...]:
        usage = fate.end != "no_usage"
        counts = ask.continuous and self.script.continuous_usage and usage
        shape = replace(ask, user="")
        return script_of.answer(shape, self.script.chunk_tokens, counts, usage)

    def _start(self, stream: Stream) -> None:
        self._active += 1
        stream.started = time.perf_counter()
        self._push(stream.started + stream.fate.ttft_s, stream)

    def _push(self, due: float, stream: Stream) -> None:
        self._count += 1
        if self._step_s:
            due = math.ceil(due / self._step_s - _SAME_STEP) * self._step_s
        heappush(self._due, (due, self._count, stream))
        if self._timer is None or self._due[0][1] == self._count:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._due[0][0] - time.perf_counter()
        wait = max(delay, bundle_s(len(self._due)))
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(3600, self._tick)
        due = self._due
        now = time.perf_counter()
        while due and due[0][0] <= now:
            at, _, stream = heappop(due)
            if not stream.end:
                self._chunk(stream, at)
            now = time.perf_counter()
        if due:
            self._arm()

    def _chunk(self, stream: Stream, at: float) -> None:
        number = len(stream.chunk_times)
        if number == stream.fate.break_at:
            self._break(stream)
            return
        stream.chunk_times.append(time.perf_counter())
        stream.connection.write(stream.pieces[number])
        if number + 1 == len(stream.pieces):
            self._finish(stream, stream.fate.end)
        elif number + 1 == stream.fate.stall_at:
            self._push(at + self._gap_s + self.script.stall_ms / 1e3, stream)
        else:
            self._push(at + self._gap_s, stream)

    def _break(self, stream: Stream) -> None:
        end, connection = stream.fate.end, stream.connection
        if end == "cut":
            connection.abort()
        elif end == "truncated":
            connection.write(b"0\r\n\r\n")
        else:
            connection.write(script_of.error_ending())
        self._finish(stream, end)

    def _finish(self, stream: Stream, end: str, held_slot: bool = True) -> None:
        stream.end, stream.ended = end, time.perf_counter()
        stream.connection.stream = None
        if held_slot:
            self._active -= 1
            if self._queue:
                self._start(self._queue.popleft())


class NullConnection(asyncio.Protocol):
    """One client connection: collects a request, hands it to the server."""

    def __init__(self, server: NullServer) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is up."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client is gone."""
        if self.stream is not None:
            self._server.abandon(self.stream)

    def write(self, data: bytes) -> None:
        """Sends bytes to the client."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Breaks the connection off."""
        self.stream = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of a request."""
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {key.strip().lower(): value.strip() for key, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(body) < length:
            return
        self._received = body[length:]
        method, path, _ = lines[0].split(" ", 2)
        self._answer(method, path, headers, body[:length])

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        script = self._server.script
        if method == "GET":
            self.write(self._get(path))
            return
        if script.api_key and headers.get("authorization") != f"Bearer {script.api_key}":
            self.write(script_of.error_response("401 Unauthorized", "Unauthorized"))
            return
        if not path.endswith("/completions"):
            self.write(script_of.error_response("404 Not Found", "Not Found"))
            return
        try:
            ask, content = script_of.parse_ask(path, body)
        except ValueError as error:
            self.write(script_of.error_response("400 Bad Request", str(error)))
            return
        if refusal := _refusal(script, ask, content):
            self.write(refusal)
            return
        stream = self._server.accept(self, ask)
        self.stream = None if stream.end else stream

    def _get(self, path: str) -> bytes:
        if path == "/null/log":
            entries = [stream.truth() for stream in self._server.log if stream.end]
            return script_of.response("200 OK", json.dumps(entries).encode())
        if path == "/v1/models":
            models = {"object": "list", "data": [{"id": self._server.script.model}]}
            return script_of.response("200 OK", json.dumps(models).encode())
        if path == "/health":
            return script_of.response("200 OK", b"")
        return script_of.error_response("404 Not Found", "Not Found")


def _refusal(script: Script, ask: Ask, content: dict[str, Any]) -> bytes | None:
    if (model := content.get("model")) != script.model:
        return script_of.error_response("404 Not Found", f"The model `{model}` does not exist.")
    if script.refuse_options and ask.continuous:
        return script_of.error_response(
            "400 Bad Request", "unknown field stream_options.continuous_usage_stats"
        )
    if script.no_stream or not content.get("stream"):
        return script_of.response("200 OK", script_of.whole_answer(ask, content))
    return None


async def serve(script: Script, port: int, log: Path | None = None) -> None:
    """Serves on 127.0.0.1 until SIGTERM or SIGINT; prints one line with the port when it is up."""
    raise_file_limit()
    loop, server, stop = asyncio.get_running_loop(), NullServer(script), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    listener = await loop.create_server(
        lambda: NullConnection(server), "127.0.0.1", port, backlog=4096
    )
    gc.freeze()
    gc.disable()
    print(f"listening {listener.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    if log is not None:
        log.write_text(json.dumps([stream.truth() for stream in server.log]), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line: every field of `Script` is an option."""
    parser = argparse.ArgumentParser(prog="null_server", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--log", type=Path, default=None, help="write the log of truth here")
    for item in fields(Script):
        kind = type(item.default)
        if kind is bool:
            on = argparse.BooleanOptionalAction
            parser.add_argument(f"--{item.name}", action=on, default=item.default)
        else:
            parser.add_argument(f"--{item.name}", type=kind, default=item.default)
    options = vars(parser.parse_args(arguments))
    port, log = options.pop("port"), options.pop("log")
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(Script(**options), port, log))


if __name__ == "__main__":
    main(sys.argv[1:])
