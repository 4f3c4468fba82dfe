"""HTTP/1.1 over asyncio, cut down to what a stream of server-sent events needs.

Why not aiohttp: the client's own cost bounds the load that one process can offer, and its lateness
ends up in the figures. This reader spends one shared buffer, one copy and a few byte searches on
each chunk; `inferlab.measure.selfcheck` measures what it costs.
"""

import asyncio
import time
from typing import Protocol

READ_BYTES = 256 * 1024


class BadResponseError(Exception):
    """The bytes received are not an HTTP response."""


class Exchange(Protocol):
    """Who receives one response; called from the event loop, in this order."""

    def on_head(self, status: int, headers: dict[str, str]) -> None:
        """The status line and the headers (names in lower case) are complete."""

    def on_body(self, data: bytes, now: float) -> None:
        """Part of the body, with transfer coding removed, at `time.perf_counter()` = `now`."""

    def on_end(self, error: Exception | None, now: float) -> None:
        """The response is complete, or broke off because of `error`."""


class ResponseParser:
    """Incremental parser of one response: `feed` bytes, get the body's bytes back."""

    __slots__ = (
        "_left",
        "_tail",
        "_until_eof",
        "chunked",
        "done",
        "headers",
        "keep_alive",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self.keep_alive = True
        self.chunked = False
        self._left = 0
        self._until_eof = False
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes of the response and gives those of its body.

        Raises:
            BadResponseError: not HTTP/1.x, or a broken chunk size.
        """
        if self._tail:
            data, self._tail = self._tail + data, b""
        if not self.status:
            data = self._head(data)
            if not self.status:
                return b""
        if self.chunked:
            return self._chunks(data)
        return data if self._until_eof else self._counted(data)

    def feed_eof(self) -> bool:
        """The connection ended; True when that is a proper end of this response."""
        if self.status and self._until_eof:
            self.done = True
        return self.done

    def _head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if not b"HTTP/1.".startswith(data[:7]):
                raise BadResponseError(f"not an HTTP response: {data[:40]!r}")
            self._tail = data
            return b""
        lines = data[:end].decode("latin-1").split("\r\n")
        rest = data[end + 4 :]
        status = _status(lines[0])
        if status < 200:
            return self._head(rest) if rest else b""
        self.status = status
        pairs = (line.partition(":") for line in lines[1:])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._choose_framing(lines[0])
        return rest

    def _choose_framing(self, status_line: str) -> None:
        headers = self.headers
        self.keep_alive = (
            headers.get("connection", "").lower() != "close"
            if status_line.startswith("HTTP/1.1")
            else False
        )
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self.chunked = True
        elif (length := headers.get("content-length", "")).isdigit():
            self._left = int(length)
            self.done = self._left == 0
        else:
            self._until_eof, self.keep_alive = True, False

    def _counted(self, data: bytes) -> bytes:
        body = data[: self._left]
        self._left -= len(body)
        self.done = self._left == 0
        return body

    def _chunks(self, data: bytes) -> bytes:
        if not self._left:
            whole = _one_chunk(data)
            if whole:
                return whole
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                if not self._left and data.startswith(b"\r\n", at):
                    at += 2
                continue
            body = self._chunk_size(data, at)
            if body < 0:
                self._tail = data[at:]
                break
            at = body
            if self.done:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _chunk_size(self, data: bytes, at: int) -> int:
        """Reads one chunk-size line (and the line break that ends the chunk before it).

        Gives the offset of what follows, or -1 when the line is not complete yet.
        """
        start = at + 2 if data.startswith(b"\r\n", at) else at
        eol = data.find(b"\r\n", start)
        if eol < 0:
            return -1
        try:
            self._left = int(data[start:eol].partition(b";")[0], 16)
        except ValueError:
            raise BadResponseError(f"broken chunk size {data[start:eol][:20]!r}") from None
        if self._left:
            return eol + 2
        if data.startswith(b"\r\n", eol + 2):
            self.done = True
            return eol + 4
        trailers = data.find(b"\r\n\r\n", eol + 2)
        if trailers >= 0:
            self.done = True
            return trailers + 4
        return -1


def _one_chunk(data: bytes) -> bytes:
    """The payload when `data` is exactly one chunk, as it is for nearly every token; else empty."""
    eol = data.find(b"\r\n", 0, 10)
    if eol < 1 or not data.endswith(b"\r\n"):
        return b""
    try:
        size = int(data[:eol], 16)
    except ValueError:
        return b""
    return data[eol + 2 : -2] if eol + 4 + size == len(data) else b""


def _status(line: str) -> int:
    parts = line.split(" ", 2)
    if not line.startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
        raise BadResponseError(f"not an HTTP response: {line[:40]!r}")
    return int(parts[1])


class Connection(asyncio.BufferedProtocol):
    """One kept-alive connection that carries one exchange at a time.

    Args:
        buffer: shared by all connections of one event loop; a read is consumed before the next.
    """

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = ResponseParser()
        self._started = False
        self.used = 0

    @property
    def reusable(self) -> bool:
        """Whether another exchange may be started on it."""
        open_ = self._transport is not None and not self._transport.is_closing()
        return open_ and self._exchange is None

    def start(self, request: bytes, exchange: Exchange) -> None:
        """Writes the request; `exchange` hears of the response."""
        assert self._transport is not None
        self._parser, self._exchange, self._started = ResponseParser(), exchange, False
        self.used += 1
        self._transport.write(request)

    def close(self) -> None:
        """Drops the connection; an exchange under way hears nothing more."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is up."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """asyncio: where to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: `nbytes` were read."""
        now = time.perf_counter()
        exchange = self._exchange
        if exchange is None:
            self.close()
            return
        parser = self._parser
        try:
            body = parser.feed(bytes(self._view[:nbytes]))
        except BadResponseError as error:
            self._end(error, now)
            return
        if not self._started and parser.status:
            self._started = True
            exchange.on_head(parser.status, parser.headers)
        if body:
            exchange.on_body(body, now)
        if parser.done:
            self._end(None, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        if self._exchange is not None:
            clean = self._parser.feed_eof()
            cut = exc or ConnectionResetError("connection closed before the response was complete")
            self._end(None if clean else cut, time.perf_counter())

    def _end(self, error: Exception | None, now: float) -> None:
        exchange, self._exchange = self._exchange, None
        if error is not None or not self._parser.keep_alive:
            self.close()
        if exchange is not None:
            exchange.on_end(error, now)
