"""What is said to one worker: prefill's exchange, and decode's up to its first event."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, web

from inferlab.engines.router.handover import Heartbeat, Ticket, params_of, prefill_body
from inferlab.engines.router.limits import Limits
from inferlab.engines.router.stream import CutError, Events, error_code
from inferlab.engines.router.trace import Trace
from inferlab.engines.router.workers import Worker, describe, within


@dataclass(slots=True)
class Ask:
    """One request of a client.

    Args:
        request: as aiohttp gives it.
        raw: its body, and `content` the same as JSON.
        headers: what engines are told of its headers.
        end: its deadline, `time.monotonic()`.
    """

    request: web.Request
    raw: bytes
    content: dict[str, Any]
    headers: dict[str, str]
    trace: Trace
    end: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Who serves an attempt; no prefill with plain replicas."""

    prefill: Worker | None
    decode: Worker

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Both, or the one."""
        return (self.decode,) if self.prefill is None else (self.prefill, self.decode)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the decode worker has begun to answer.

    Args:
        response: open while a stream comes.
        head: the first events, or the whole body.
        events: the stream; None for an answer in one piece.
    """

    response: ClientResponse
    head: bytes
    events: Events | None


class RejectedError(Exception):
    """The engine refuses the request itself (4xx): the client gets its answer unchanged."""

    def __init__(self, answer: web.Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


class BrokenError(Exception):
    """An attempt failed before the first event.

    Args:
        reason: what failed, for the reader.
        blamed: which workers the next attempt should avoid.
        cause: the error of the connection; None when the worker answered, but wrongly.
    """

    def __init__(
        self, reason: str, *blamed: Worker | None, cause: BaseException | None = None
    ) -> None:
        super().__init__(reason)
        self.blamed = [worker for worker in blamed if worker is not None]
        self.cause = cause


class Exchange:
    """Talks to workers over one session."""

    def __init__(self, session: ClientSession, limits: Limits, beat: Heartbeat) -> None:
        self._session, self._limits, self._beat = session, limits, beat

    async def prefill(self, ask: Ask, worker: Worker) -> Ticket:
        """Has the prompt computed; gives what decode needs to read its KV blocks.

        Raises:
            BrokenError: it failed, and another worker may not.
            RejectedError: the request is at fault.
        """
        sent = time.monotonic()
        response, text = await self._prefill(ask, worker, sent + self._limits.prefill_s)
        born = max(sent, self._beat.awake_since())
        if 400 <= response.status < 500:
            raise RejectedError(whole(response, text, ask.trace))
        if response.status != 200:
            raise BrokenError(f"prefill {worker.url} 返回 {response.status}", worker)
        if (params := params_of(text)) is None:
            raise BrokenError(f"prefill {worker.url} 没有给出 kv_transfer_params", worker)
        ask.trace.prefill_ms = ask.trace.ms()
        return Ticket(params, born, self._limits.kv_lease_s)

    async def _prefill(
        self, ask: Ask, worker: Worker, limit: float
    ) -> tuple[ClientResponse, bytes]:
        url, body = worker.url + ask.request.path_qs, prefill_body(ask.content)
        try:
            with worker.busy():
                async with (
                    within(min(ask.end, limit), worker),
                    self._session.post(url, data=body, headers=ask.headers) as response,
                ):
                    return response, await response.read()
        except (ClientError, OSError) as error:
            reason = f"prefill {worker.url} {describe(error)}"
            raise BrokenError(reason, worker, cause=error) from error

    async def decode(
        self, ask: Ask, pair: Pair, body: bytes, lease_ends: float, stack: AsyncExitStack
    ) -> Reply:
        """Waits for decode's first event, or for its whole answer when that is no stream.

        Args:
            lease_ends: `time.monotonic()`; a first event later than that is not trusted.
            stack: holds the response open.

        Raises:
            BrokenError: it failed, and another attempt may not.
        """
        try:
            reply = await self._decode(ask, pair, body, lease_ends, stack)
        except (ClientError, OSError, CutError) as error:
            # A connection that died is decode's own; silence may be the KV read from prefill.
            other = pair.prefill if isinstance(error, TimeoutError) else None
            reason = f"decode {pair.decode.url} {describe(error)}"
            raise BrokenError(reason, pair.decode, other, cause=error) from error
        code = reply.response.status if reply.events is None else error_code(reply.head)
        if code is not None and code >= 500:
            text = reply.head[:200].decode(errors="replace").strip()
            reason = f"decode {pair.decode.url} 报错 {code}：{text}"
            raise BrokenError(reason, pair.decode, pair.prefill)
        return reply

    async def _decode(
        self, ask: Ask, pair: Pair, body: bytes, lease_ends: float, stack: AsyncExitStack
    ) -> Reply:
        url = pair.decode.url + ask.request.path_qs
        streams = bool(ask.content.get("stream"))
        first_s = self._limits.first_token_s
        first_s += self._limits.prefill_s if pair.prefill is None else 0
        first_limit = min(ask.end, lease_ends, time.monotonic() + first_s)
        async with within(first_limit if streams else ask.end, *pair.workers) as timer:
            if not streams and pair.prefill is not None:
                # By then decode has read the KV: prefill's fate is no longer its own.
                leave = pair.prefill.waits.discard
                asyncio.get_running_loop().call_later(first_s, leave, timer)
            response = await stack.enter_async_context(
                self._session.post(url, data=body, headers=ask.headers)
            )
            if response.content_type != "text/event-stream":
                return Reply(response, await response.read(), None)
            events = Events(pair.decode)
            return Reply(response, await events.first(response.content), events)


def whole(response: ClientResponse, body: bytes, trace: Trace) -> web.Response:
    """The engine's answer as it is."""
    kept = {"Content-Type": response.headers.get("Content-Type", "application/json")}
    return web.Response(status=response.status, body=body, headers=kept | trace.headers())
