"""The routes: what clients and operators see of the router."""

import asyncio
import json
import re
import uuid
from collections import deque
from typing import Any

from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)

from inferlab.engines.router.attempts import Router
from inferlab.engines.router.exchange import Ask
from inferlab.engines.router.handover import refusal
from inferlab.engines.router.limits import KEEPALIVE_S, Limits
from inferlab.engines.router.metrics import exposition
from inferlab.engines.router.stream import ClientGoneError, error_response
from inferlab.engines.router.trace import Counts, Trace
from inferlab.engines.router.workers import Fleet, Worker, describe

MAX_BODY_BYTES = 64 << 20
CONNECT_S = 2.0
KEPT_REQUESTS = 500
_FORWARDED = ("Authorization", "traceparent", "tracestate")


def engine_session() -> ClientSession:
    """Connections to the engines: as many as needed, kept alive, without time limits of their own.

    aiohttp sets TCP_NODELAY on both sides by itself.
    """
    return ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
    )


class BadRequestError(Exception):
    """The router itself refuses the request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Front:
    """The handlers of the routes."""

    def __init__(
        self, router: Router, fleet: Fleet, session: ClientSession, limits: Limits, counts: Counts
    ) -> None:
        self._router, self._fleet, self._session = router, fleet, session
        self._limits, self._counts = limits, counts
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/requests", self.requests)
        return app

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST of a completion: counted, answered, logged."""
        trace = Trace(_request_id(request), request.path)
        self._counts.requests += 1
        self._counts.in_flight += 1
        try:
            return await self._router.answer(await self._ask(request, trace))
        except BadRequestError as error:
            trace.outcome = "rejected"
            return error_response(error.status, "BadRequestError", str(error), trace.headers())
        except (asyncio.CancelledError, ClientGoneError) as gone:
            trace.outcome = "client_gone"
            raise asyncio.CancelledError from gone
        finally:
            self._counts.in_flight -= 1
            self._recent.append(trace.log())

    async def _ask(self, request: web.Request, trace: Trace) -> Ask:
        end = trace.arrived + self._limits.deadline_s
        raw = await _body(request, end)
        content = _content(raw)
        if self._fleet.prefill and (problem := refusal(content)):
            raise BadRequestError(400, problem)
        sent = request.headers
        headers = {name: sent[name] for name in _FORWARDED if name in sent}
        headers["Content-Type"] = "application/json"
        return Ask(request, raw, content, headers, trace, end)

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models: the answer of a worker."""
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        tried: set[Worker] = set()
        reasons: list[str] = []
        for _ in self._fleet.decode:
            worker = self._fleet.pick(self._fleet.decode, tried)
            if worker is None or worker in tried:
                break
            try:
                return await self._models_of(worker, headers)
            except (ClientError, OSError) as error:
                reasons.append(f"{worker.url} {describe(error)}")
                tried.add(worker)
        message = "；".join(reasons) or "没有可用的 worker"
        return error_response(503, "no_worker", message)

    async def _models_of(self, worker: Worker, headers: dict[str, str]) -> web.Response:
        url = f"{worker.url}/v1/models"
        async with asyncio.timeout(CONNECT_S), self._session.get(url, headers=headers) as answer:
            body, kind = await answer.read(), answer.content_type
        return web.Response(status=answer.status, body=body, content_type=kind)

    async def health(self, _: web.Request) -> web.Response:
        """GET /health: the workers; 503 when no request can be served."""
        ready = self._fleet.ready
        state = {"status": "ok" if ready else "down"} | {
            role: [_state(worker) for worker in pool] for role, pool in self._fleet.roles().items()
        }
        return web.json_response(state, status=200 if ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics: Prometheus text."""
        text = exposition(self._counts, self._fleet)
        return web.Response(text=text, content_type="text/plain")

    async def requests(self, _: web.Request) -> web.Response:
        """GET /requests: the lines of the last `KEPT_REQUESTS` that have ended, oldest first."""
        return web.json_response(list(self._recent))


async def _body(request: web.Request, end: float) -> bytes:
    try:
        async with asyncio.timeout_at(end):
            return await request.read()
    except TimeoutError as error:
        raise BadRequestError(408, "请求体没有在总时限内收完") from error
    except web.HTTPRequestEntityTooLarge as error:
        limit = MAX_BODY_BYTES >> 20
        raise BadRequestError(413, f"请求体超过 {limit} MiB") from error


def _content(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(400, f"请求体不是 JSON：{error}") from error
    if not isinstance(content, dict):
        raise BadRequestError(400, "请求体应是一个 JSON 对象")
    return content


def _request_id(request: web.Request) -> str:
    """The client's id made unique, as engines do not forgive a repeated one; or a new one."""
    new = uuid.uuid4().hex
    given = re.sub(r"[^\w.:-]", "_", request.headers.get("X-Request-Id", ""), flags=re.ASCII)[:80]
    return f"{given}-{new[:8]}" if given else new


def _state(worker: Worker) -> dict[str, object]:
    state: dict[str, object] = {"url": worker.url, "healthy": worker.healthy}
    state |= {"in_flight": worker.in_flight, "requests": worker.requests}
    state |= {"failures": worker.failures}
    return state | ({"problem": worker.problem} if worker.problem else {})
