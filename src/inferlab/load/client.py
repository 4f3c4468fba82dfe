"""The streaming client: sends one request when told to and gives back what it saw.

It opens connections as needed, keeps them, and stamps every chunk as it is read. No tokenizer and
no HTTP library are imported: start-up and cost per token are part of what a client is judged by.
"""

import asyncio
import os
import select
import socket
import ssl
import time
from dataclasses import dataclass

from inferlab.load.connection import Connection
from inferlab.load.endpoint import Endpoint
from inferlab.load.http_stream import BadResponseError
from inferlab.load.samples import RequestSample, RequestSpec, Status
from inferlab.load.sockets import SocketPool
from inferlab.load.sse import StreamReader, error_text

AWAKE_S = 0.0002
_BAD_FINISH = ("abort", "error")


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response that is not a stream of tokens."""

    status: int
    content_type: str
    body: bytes


class StreamExchange:
    """Receives one response: a stream of events, or whatever came instead of it."""

    __slots__ = (
        "body", "content_type", "ended", "error", "finished", "reader", "status", "streaming"
    )  # fmt: skip

    def __init__(self, ended: asyncio.Future[None], keep_text: bool = False) -> None:
        self.reader = StreamReader(keep_text)
        self.ended = ended
        self.status = 0
        self.content_type = ""
        self.streaming = False
        self.body = b""
        self.error: Exception | None = None
        self.finished = 0.0

    def on_head(self, status: int, headers: dict[str, str]) -> None:
        """Decides whether a stream follows."""
        self.status = status
        self.content_type = headers.get("content-type", "")
        self.streaming = status == 200 and "text/event-stream" in self.content_type

    def on_body(self, pieces: list[bytes], times: list[float]) -> None:
        """Reads events, or keeps the start of another body for the error text."""
        if self.streaming:
            self.reader.feed_many(pieces, times)
        elif len(self.body) < 65536:
            self.body += b"".join(pieces)

    def on_end(self, error: Exception | None, now: float) -> None:
        """Wakes the sender."""
        self.error, self.finished = error, now
        if not self.ended.done():
            self.ended.set_result(None)

    def outcome(self) -> tuple[Status, str]:
        """How it ended, and the error's text."""
        reader = self.reader
        if self.error is not None:
            bad = isinstance(self.error, BadResponseError)
            return (Status.BAD_RESPONSE if bad else Status.CUT), str(self.error)
        if self.status != 200:
            return Status.HTTP_ERROR, f"HTTP {self.status}: {error_text(self.body)}"
        if not self.streaming:
            return Status.NOT_STREAMING, f"Content-Type: {self.content_type or '(none)'}"
        if reader.error:
            return Status.ERROR_EVENT, reader.error
        if not reader.done:
            return Status.TRUNCATED, "stream ended without [DONE]"
        if reader.finish_reason() in _BAD_FINISH:
            return Status.ERROR_EVENT, f"finish_reason {reader.finish_reason()}"
        return (Status.OK, "") if reader.usage() else (Status.NO_USAGE, "no final usage block")


class Client:
    """Sends requests to one endpoint over kept-alive connections; for one event loop.

    Args:
        endpoint: where to.
        origin: `time.perf_counter()` of the run's start; samples count from it.
    """

    def __init__(self, endpoint: Endpoint, origin: float | None = None) -> None:
        self.endpoint = endpoint
        self.origin = time.perf_counter() if origin is None else origin
        self.connections_opened = 0
        self._idle: list[Connection] = []
        host, port, tls = endpoint.address
        self._host, self._port = host, port
        self._tls = ssl.create_default_context() if tls else None
        self._pool: SocketPool | None = None

    def now(self) -> float:
        """Seconds since the run's start."""
        return time.perf_counter() - self.origin

    async def send(
        self, spec: RequestSpec, *, scheduled_s: float | None = None, index: int = 0,
        request: bytes | None = None,
    ) -> RequestSample:  # fmt: skip
        """Sends one request when it is due and waits for its end. Never raises for what comes back.

        Called ahead of time, it has a connection ready when the moment comes.

        Args:
            spec: what to ask.
            scheduled_s: when it is or was due; now by default.
            index: number of the request in its run.
            request: `endpoint.request(spec)` made beforehand.
        """
        due = self.now() if scheduled_s is None else scheduled_s
        request = request or self.endpoint.request(spec)
        exchange = StreamExchange(asyncio.get_running_loop().create_future(), spec.keep_text)
        sent = self.now()
        try:
            async with asyncio.timeout(max(0.0, due - sent) + self.endpoint.timeout_s):
                sent = await self._exchange(request, exchange, due)
            status, error = exchange.outcome()
        except TimeoutError:
            status, error = Status.TIMEOUT, f"no end after {self.endpoint.timeout_s:g} s"
        except OSError as problem:
            status, error = Status.CONNECT_ERROR, _os_error(problem)
        except asyncio.CancelledError:
            status, error = Status.CANCELLED, "cancelled by the client"
        return self._sample(spec, exchange, index, (due, sent), (status, error))

    async def get_models(self) -> Response:
        """The answer of `GET /v1/models`.

        Raises:
            OSError: no connection, or it broke off.
        """
        exchange = StreamExchange(asyncio.get_running_loop().create_future())
        async with asyncio.timeout(self.endpoint.connect_timeout_s):
            await self._exchange(self.endpoint.models_request(), exchange)
        return Response(exchange.status, exchange.content_type, exchange.body)

    def close(self) -> None:
        """Closes the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    async def until(self, at_s: float) -> None:
        """Sleeps until second `at_s` of the run, the last moment awake: waking up takes long."""
        if (delay := at_s - self.now()) > AWAKE_S:
            await asyncio.sleep(delay - AWAKE_S)
        while self.now() < at_s:
            await asyncio.sleep(0)

    async def _exchange(
        self, request: bytes, exchange: StreamExchange, due_s: float = 0.0
    ) -> float:
        """Runs one exchange to its end and gives the time of sending.

        A kept connection that the server closed meanwhile answers nothing; only then the request
        goes out once more, on a new connection.
        """
        while True:
            connection, fresh = await self._connection()
            if due_s > self.now():
                await self.until(due_s)
                if not connection.reusable:
                    continue
            sent = self.now()
            connection.start(request, exchange)
            try:
                await exchange.ended
            except asyncio.CancelledError:
                connection.close()
                exchange.finished = time.perf_counter()
                raise
            if connection.reusable:
                self._idle.append(connection)
            if fresh or exchange.status or not isinstance(exchange.error, OSError):
                return sent
            exchange.ended = asyncio.get_running_loop().create_future()

    async def _connection(self) -> tuple[Connection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection, False
        connection = Connection()
        try:
            async with asyncio.timeout(self.endpoint.connect_timeout_s):
                await self._connect(connection)
        except TimeoutError:
            waited = self.endpoint.connect_timeout_s
            raise ConnectionError(f"no connection after {waited:g} s") from None
        self.connections_opened += 1
        return connection, True

    async def _connect(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if self._tls is not None or not hasattr(select, "epoll"):
            await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
            return
        if self._pool is None:
            self._pool = SocketPool(loop)
        await self._pool.connect(self._host, self._port, connection)

    def _sample(
        self, spec: RequestSpec, exchange: StreamExchange, index: int,
        times: tuple[float, float], outcome: tuple[Status, str],
    ) -> RequestSample:  # fmt: skip
        reader, origin = exchange.reader, self.origin
        usage = reader.usage() or {}
        total = int(usage.get("completion_tokens") or reader.total)
        details = usage.get("prompt_tokens_details") or {}
        return RequestSample(
            index=index,
            scheduled_s=times[0],
            sent_s=times[1],
            finished_s=(exchange.finished or time.perf_counter()) - origin,
            status=outcome[0],
            chunk_s=tuple([stamp - origin for stamp in reader.times]),
            chunk_tokens=reader.chunk_tokens(total),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=total,
            cached_tokens=int(details.get("cached_tokens") or 0),
            tokens_estimated=bool(reader.times) and not reader.has_counts,
            finish_reason=reader.finish_reason(),
            error=outcome[1],
            label=spec.label,
            text=reader.text() if spec.keep_text else None,
        )


def _os_error(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror):
        return f"cannot resolve the host name ({problem.strerror})"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {problem.reason or problem}"
    return os.strerror(problem.errno) if problem.errno else str(problem)
