"""Attempts at one request: on whom, how long, whose fault it was, and when to stop.

Until the first event is there nothing has reached the client, and every failure is answered by
another attempt with a new prefill and a new id. After it a loss cannot be repaired: the client is
told inside the stream.
"""

import time
from contextlib import AsyncExitStack

from aiohttp import ClientError, web

from inferlab.engines.router.exchange import (
    Ask,
    BrokenError,
    Exchange,
    Pair,
    RejectedError,
    Reply,
    whole,
)
from inferlab.engines.router.handover import StaleError, decode_body
from inferlab.engines.router.limits import Limits
from inferlab.engines.router.stream import (
    CutError,
    Events,
    begin,
    error_response,
    farewell,
    send,
)
from inferlab.engines.router.trace import Counts
from inferlab.engines.router.workers import Fleet, Worker, describe, refused, within


class Router:
    """Answers requests with the workers of a fleet."""

    def __init__(self, fleet: Fleet, exchange: Exchange, limits: Limits, counts: Counts) -> None:
        self._fleet, self._exchange = fleet, exchange
        self._limits, self._counts = limits, counts

    async def answer(self, ask: Ask) -> web.StreamResponse:
        """Serves one request to its end.

        Raises:
            ClientGoneError: nobody listens any more.
        """
        tried: set[Worker] = set()
        left = self._limits.tries
        while left > 0 and time.monotonic() < ask.end and (pair := await self._pair(tried)):
            try:
                return await self._attempt(ask, pair)
            except RejectedError as rejected:
                ask.trace.outcome = "rejected"
                return rejected.answer
            except BrokenError as broken:
                ask.trace.reasons.append(str(broken))
                left -= self._blame(broken, tried)
        return self._give_up(ask)

    async def _pair(self, tried: set[Worker]) -> Pair | None:
        if not self._fleet.ready:
            await self._fleet.look_again()
        prefill = self._fleet.pick(self._fleet.prefill, tried)
        decode = self._fleet.pick(self._fleet.decode, tried)
        missing = decode is None or (self._fleet.prefill and prefill is None)
        return None if missing or decode is None else Pair(prefill, decode)

    def _blame(self, broken: BrokenError, tried: set[Worker]) -> int:
        """Notes whose fault it was; gives how many tries it has cost."""
        nobody_there = broken.cause is not None and refused(broken.cause)
        first_time = not tried.issuperset(broken.blamed)
        for worker in broken.blamed:
            worker.failed()
            if nobody_there:
                worker.found("连不上")
            elif broken.cause is not None:
                self._fleet.suspect(worker)
        tried.update(broken.blamed)
        return 0 if nobody_there and first_time else 1

    async def _attempt(self, ask: Ask, pair: Pair) -> web.StreamResponse:
        ask.trace.begin(pair.prefill and pair.prefill.url, pair.decode.url)
        self._counts.retries += ask.trace.attempts > 1
        ask.headers["X-Request-Id"] = f"{ask.trace.id}-{ask.trace.attempts}"
        if pair.prefill is None:
            return await self._decode(ask, pair, ask.raw, ask.end)
        ticket = await self._exchange.prefill(ask, pair.prefill)
        try:
            body = decode_body(ask.content, ticket)
        except StaleError as error:
            raise BrokenError(str(error)) from error
        return await self._decode(ask, pair, body, ticket.ends)

    async def _decode(
        self, ask: Ask, pair: Pair, body: bytes, lease_ends: float
    ) -> web.StreamResponse:
        async with AsyncExitStack() as stack:
            stack.enter_context(pair.decode.busy())
            reply = await self._exchange.decode(ask, pair, body, lease_ends, stack)
            if reply.events is not None:
                return await self._relay(ask, pair, reply, reply.events)
            ask.trace.outcome = "ok" if reply.response.status < 400 else "rejected"
            return whole(reply.response, reply.head, ask.trace)

    async def _relay(
        self, ask: Ask, pair: Pair, reply: Reply, events: Events
    ) -> web.StreamResponse:
        """Sends the stream on; a loss from here on is told inside it."""
        ask.trace.first_event_ms = ask.trace.ms()
        kept = {"Content-Type": reply.response.headers["Content-Type"], "Cache-Control": "no-cache"}
        out = web.StreamResponse(headers=kept | ask.trace.headers())
        ask.trace.outcome = "ok"
        try:
            async with within(ask.end, pair.decode):
                await begin(ask.request, out)
                await send(out, reply.head)
                await events.rest(reply.response.content, out)
        except (ClientError, OSError, CutError) as error:
            if not events.done:
                await self._cut(ask, pair, out, error)
        if events.error:
            ask.trace.outcome = "engine_error"
        return out

    async def _cut(
        self, ask: Ask, pair: Pair, out: web.StreamResponse, error: BaseException
    ) -> None:
        late = time.monotonic() >= ask.end
        if late:
            reason = f"超过总时限 {self._limits.deadline_s:g} s，在 decode {pair.decode.url} 上停下"
        else:
            pair.decode.failed()
            self._fleet.suspect(pair.decode)
            reason = f"decode {pair.decode.url} {describe(error)}，已经发出的部分无法接着生成"
        ask.trace.outcome = "cut"
        ask.trace.reasons.append(reason)
        self._counts.cut += 1
        await farewell(ask.request, out, "deadline" if late else "decode_lost", reason)

    def _give_up(self, ask: Ask) -> web.Response:
        """One line with the reasons: 504 too late, 503 nobody there, 502 all attempts failed."""
        self._counts.failed += 1
        reasons = list(ask.trace.reasons)
        status, kind = 502, "attempts_failed"
        if time.monotonic() >= ask.end:
            status, kind, ask.trace.outcome = 504, "deadline", "deadline"
            reasons.append(f"超过总时限 {self._limits.deadline_s:g} s")
        elif not self._fleet.ready:
            status, kind = (502 if reasons else 503), "no_worker"
            down = [f"{w.url} {w.problem}" for w in self._fleet.workers if w.problem]
            reasons.append("没有可用的 worker：" + "，".join(down))
        message = "；".join(reasons)
        return error_response(status, kind, message, ask.trace.headers())
