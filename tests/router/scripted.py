"""A scripted worker: NIXL's hand-over as vLLM answers it, and the ways in which workers fail.

It proves the router, not an engine: what it answers is fixed, and it writes down what it is asked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKENS = 6
LIMITS = ("max_tokens", "max_completion_tokens")
ERROR = {"error": {"message": "Internal server error", "type": "InternalServerError", "code": 500}}


def tokens_of(prompt: str) -> list[str]:
    """The only right answer to a prompt."""
    return [f" {prompt}{number}" for number in range(TOKENS)]


@dataclass(slots=True)
class Blocks:
    """KV blocks that prefill workers hold: read once, then free, as with NIXL."""

    prompts: dict[str, str] = field(default_factory=dict)
    misused: list[str] = field(default_factory=list)

    def store(self, prompt: str, request_id: str) -> dict[str, Any]:
        """Keeps a prompt's blocks; gives the parameters to read them."""
        self.prompts[request_id] = prompt
        return {"do_remote_prefill": True, "remote_request_id": request_id}

    def read(self, params: dict[str, Any] | None) -> str:
        """The prompt whose blocks are read; wrong tokens and a note when they are not there."""
        request_id = (params or {}).get("remote_request_id", "none")
        if request_id not in self.prompts:
            self.misused.append(request_id)
        return self.prompts.pop(request_id, "WRONG")


class Worker:
    """One worker on a port that it keeps over restarts.

    Args:
        blocks: shared by prefill and decode; None makes it a plain replica.

    Attributes:
        act: what it does with completions: ok, or the name of a failure (see `_misbehave`).
        health: status of its health check.
        hold: set, it sends all tokens; cleared, it stops after the first and waits.
        awake: cleared, it answers nothing at all, health checks included.
    """

    def __init__(self, blocks: Blocks | None = None) -> None:
        self.blocks, self.act, self.health, self.port = blocks, "ok", 200, 0
        self.hold, self.awake = asyncio.Event(), asyncio.Event()
        self.hold.set()
        self.awake.set()
        self.began, self.aborted = asyncio.Event(), asyncio.Event()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens, on the port of last time if there was one."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def die(self) -> None:
        """All connections are reset and nobody listens any more, as after SIGKILL."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        await self.awake.wait()
        return web.Response(status=self.health)

    async def _models(self, _: web.Request) -> web.Response:
        await self.awake.wait()
        return web.json_response({"object": "list", "data": [{"id": "lab"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        self.began.set()
        try:
            await self.awake.wait()
            if (answer := await self._misbehave(request)) is not None:
                return answer
            params = body.get("kv_transfer_params") or {}
            if params.get("do_remote_decode"):
                return self._prefilled(request, body)
            return await self._decoded(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted.set()
            raise

    async def _misbehave(self, request: web.Request) -> web.StreamResponse | None:
        if self.act == "500":
            return web.json_response(ERROR, status=500)
        if self.act == "400":
            error = {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}
            return web.json_response(error, status=400)
        if self.act == "no_params":
            return web.json_response({"choices": []})
        if self.act == "die" and request.transport is not None:
            asyncio.get_running_loop().call_soon(request.transport.abort)
            await self.die_soon()
        if self.act == "reset" and request.transport is not None:
            request.transport.abort()
        return None

    async def die_soon(self) -> None:
        """Dies from inside a handler."""
        self._death = asyncio.create_task(self.die())
        await asyncio.Event().wait()

    def _prefilled(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        limits = [body[name] for name in LIMITS if name in body]
        assert limits == [1] and not body["stream"] and self.blocks is not None
        params = self.blocks.store(_prompt(body), request.headers["X-Request-Id"])
        return web.json_response({"choices": [{"text": "?"}], "kv_transfer_params": params})

    async def _decoded(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        params = body.get("kv_transfer_params")
        prompt = self.blocks.read(params) if self.blocks is not None else _prompt(body)
        if not body.get("stream"):
            await self.hold.wait()
            return web.json_response({"choices": [{"text": "".join(tokens_of(prompt))}]})
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await out.prepare(request)
        async for event in self._events(prompt, "messages" in body):
            await out.write(event)
        if self.act.startswith("cut") and request.transport is not None:
            request.transport.abort()
        return out

    async def _events(self, prompt: str, chat: bool) -> AsyncIterator[bytes]:
        if self.act == "error_first":
            yield _event(ERROR) + b"data: [DONE]\n\n"
            return
        if self.act == "refused_first":
            yield _event({"error": {"message": "bad", "code": 400}}) + b"data: [DONE]\n\n"
            return
        for number, text in enumerate(tokens_of(prompt)):
            if number == 1:
                await self.hold.wait()
            if number == 2 and self.act in ("cut", "cut_half", "no_done"):
                yield b'data: {"choices": [{"te' if self.act == "cut_half" else b""
                return
            part = {"delta": {"content": text}} if chat else {"text": text}
            yield _event({"choices": [{"index": 0, **part}]})
        yield b"data: [DONE]\n\n"


def _event(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _prompt(body: dict[str, Any]) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
