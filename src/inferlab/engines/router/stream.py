"""From an engine's event stream to the client, in whole events and as they come."""

import asyncio
import contextlib
import json

from aiohttp import StreamReader, web

from inferlab.engines.router.workers import Worker

_ERROR = b'data: {"error"'
# A client that does not read must not keep a lost request open.
_FAREWELL_S = 0.5


class ClientGoneError(Exception):
    """The client has closed its connection."""


class CutError(Exception):
    """The stream ended without `[DONE]`."""


class Events:
    """Cuts what arrives at the ends of events and remembers how the stream ended.

    A half event is held back: should the worker die there, the error event that follows would
    otherwise be read as part of it.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._held = b""
        self._last = b""
        self.error = False

    @property
    def done(self) -> bool:
        """Whether the last whole event was `[DONE]`."""
        return self._last.rstrip().endswith(b"data: [DONE]")

    def take(self, chunk: bytes) -> bytes:
        """Adds bytes of the engine; gives the whole events, possibly none."""
        self._worker.silent = 0
        data = self._held + chunk if self._held else chunk
        end = _whole(data)
        data, self._held = data[:end], data[end:]
        if data:
            self._last = data
            self.error = self.error or _ERROR in data
        return data

    async def first(self, content: StreamReader) -> bytes:
        """Waits for the first event with data; gives all whole events up to then.

        Raises:
            CutError: the stream ended before.
        """
        begun = b""
        while not _first_data(begun):
            chunk = await content.readany()
            if not chunk:
                raise CutError
            begun += self.take(chunk)
        return begun

    async def rest(self, content: StreamReader, out: web.StreamResponse) -> None:
        """Passes on what follows, to the end.

        Raises:
            CutError: the end came without `[DONE]`.
            ClientGoneError: the client does not listen any more.
        """
        async for chunk in content.iter_any():
            if data := self.take(chunk):
                await send(out, data)
        if not self.done:
            raise CutError


def error_code(events: bytes) -> int | None:
    """The code of the error that the first data event reports; None when it is no error."""
    try:
        event = json.loads(_first_data(events))
    except ValueError:
        return None
    error = event.get("error") if isinstance(event, dict) else None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _whole(data: bytes) -> int:
    """How many bytes belong to whole events."""
    if data.endswith((b"\n\n", b"\r\n\r\n")):
        return len(data)
    ends = ((data.rfind(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n"))
    return max(at + size if at >= 0 else 0 for at, size in ends)


def _first_data(events: bytes) -> bytes:
    for line in events.splitlines():
        if line.startswith(b"data:"):
            return line[5:].strip()
    return b""


async def begin(request: web.BaseRequest, out: web.StreamResponse) -> None:
    """Sends the head of the response.

    Raises:
        ClientGoneError: the client has closed.
    """
    try:
        await out.prepare(request)
    except ConnectionError as error:
        raise ClientGoneError from error


async def send(out: web.StreamResponse, data: bytes) -> None:
    """Writes to the client.

    Raises:
        ClientGoneError: it has closed. aiohttp's own error looks like a worker's death.
    """
    try:
        await out.write(data)
    except ConnectionError as error:
        raise ClientGoneError from error


async def farewell(
    request: web.BaseRequest, out: web.StreamResponse, kind: str, reason: str
) -> None:
    """Ends a stream that was lost: an error event, then `[DONE]`."""
    code = 504 if kind == "deadline" else 502
    error = error_json(reason, kind, code).encode()
    with contextlib.suppress(TimeoutError, ClientGoneError):
        async with asyncio.timeout(_FAREWELL_S):
            await send(out, b"data: " + error + b"\n\ndata: [DONE]\n\n")
            return
    if request.transport is not None:
        request.transport.abort()


def error_json(message: str, kind: str, code: int) -> str:
    """An error as the OpenAI API writes it."""
    error = {"message": message, "type": kind, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False)


def error_response(
    status: int, kind: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    """A whole answer with an error of the router."""
    text = error_json(message, kind, status)
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
