"""One connection and the exchange on it.

Why not aiohttp: the client's own cost bounds the load that one process can offer, and its lateness
ends up in the figures. Here a token costs one receive and a timestamp when it arrives; the bytes
are read a few dozen tokens at a time. `python -m inferlab.measure.selfcheck cost` measures it.
"""

import asyncio
import time
from typing import Protocol

from inferlab.load.http_stream import BadResponseError, ResponseParser

READ_TOGETHER = 32


class Exchange(Protocol):
    """Who receives one response; called from the event loop, in this order."""

    def on_head(self, status: int, headers: dict[str, str]) -> None:
        """The status line and the headers (names in lower case) are complete."""

    def on_body(self, pieces: list[bytes], times: list[float]) -> None:
        """Parts of the body, transfer coding removed, with the `time.perf_counter()` of each."""

    def on_end(self, error: Exception | None, now: float) -> None:
        """The response is complete, or broke off because of `error`."""


class Connection(asyncio.Protocol):
    """One kept-alive connection that carries one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = ResponseParser()
        self._held: list[bytes] = []
        self._times: list[float] = []
        self._started = False
        self._in_stream = False

    @property
    def reusable(self) -> bool:
        """Whether another exchange may be started on it."""
        open_ = self._transport is not None and not self._transport.is_closing()
        return open_ and self._exchange is None

    def start(self, request: bytes, exchange: Exchange) -> None:
        """Writes the request; `exchange` hears of the response."""
        assert self._transport is not None
        self._parser, self._exchange = ResponseParser(), exchange
        self._started = self._in_stream = False
        self._transport.write(request)

    def close(self) -> None:
        """Drops the connection; an exchange under way hears what has arrived, and no end."""
        if self._exchange is not None:
            self._read_held()
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is up."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have arrived.

        In the middle of a chunked body they are only kept, with their time. The body's end is an
        empty line after the last chunk; a few bytes alone may be the rest of one.
        """
        self._times.append(time.perf_counter())
        self._held.append(data)
        at_end = data.endswith(b"\r\n\r\n") or len(data) < 8
        if at_end or not self._in_stream or len(self._held) >= READ_TOGETHER:
            self._read_held()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._read_held()
        if self._exchange is not None:
            clean = self._parser.feed_eof()
            cut = exc or ConnectionResetError("connection closed before the response was complete")
            self._end(None if clean else cut, time.perf_counter())

    def _read_held(self) -> None:
        held, times = self._held, self._times
        if not held:
            return
        self._held, self._times = [], []
        exchange, parser = self._exchange, self._parser
        if exchange is None:
            self.close()
            return
        try:
            bodies = parser.feed_many(held)
        except BadResponseError as error:
            self._end(error, times[-1])
            return
        if not self._started and parser.status:
            exchange.on_head(parser.status, parser.headers)
            self._started, self._in_stream = True, parser.chunked
        if self._started:
            exchange.on_body(bodies, times)
        if parser.done:
            self._end(None, times[-1])

    def _end(self, error: Exception | None, now: float) -> None:
        exchange, self._exchange = self._exchange, None
        if error is not None or not self._parser.keep_alive:
            self.close()
        if exchange is not None:
            exchange.on_end(error, now)
