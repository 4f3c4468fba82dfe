"""A router in front of scripted workers, all in one event loop, and a client."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, ClientSession
from scripted import Blocks, Worker, tokens_of

from inferlab.engines.router.options import parse
from inferlab.engines.router.service import Service, routing

# Nothing here takes a second on a quiet machine; a busy one may take its time.
PATIENCE_S = 60.0


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test; one that hangs fails."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(*arguments, **named)

        asyncio.run(limited())

    return run


@dataclass(slots=True)
class Answer:
    """What the client has received."""

    status: int
    headers: Mapping[str, str]
    text: str
    events: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def error(self) -> dict[str, Any]:
        """The error of a whole answer, or of the last event."""
        return (self.events[-1] if self.events else json.loads(self.text))["error"]


@dataclass(slots=True)
class Bench:
    """Router, workers and client."""

    service: Service
    prefill: list[Worker]
    decode: list[Worker]
    blocks: Blocks
    client: ClientSession

    @property
    def url(self) -> str:
        """The router's address."""
        return self.service.url

    async def post(self, prompt: str = "a", **options: Any) -> ClientResponse:
        """Sends a completion, streamed unless told otherwise; gives the open response."""
        body = {"model": "lab", "prompt": prompt, "max_tokens": 6, "stream": True} | options
        return await self.client.post(f"{self.url}/v1/completions", json=body)

    async def ask(self, prompt: str = "a", **options: Any) -> Answer:
        """Sends a completion and waits for its end."""
        return await read(await self.post(prompt, **options))

    async def right(self, prompt: str, **options: Any) -> Answer:
        """The same, and the tokens must be the right ones."""
        answer = await self.ask(prompt, **options)
        assert answer.status == 200, answer.text
        assert answer.done and answer.text == "".join(tokens_of(prompt))
        assert self.blocks.misused == []
        return answer

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a GET."""
        async with self.client.get(self.url + path) as response:
            return response.status, await response.text()


async def read(response: ClientResponse) -> Answer:
    """Reads a response to its end; a stream's text is put together from its events."""
    async with response:
        answer = Answer(response.status, response.headers, await response.text())
    if response.content_type != "text/event-stream":
        return answer
    lines = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part]
    answer.done = lines[-1] == "[DONE]"
    answer.events = [json.loads(line) for line in lines if line != "[DONE]"]
    choices = [choice for event in answer.events for choice in event.get("choices", [])]
    answer.text = "".join(c.get("text") or c["delta"]["content"] for c in choices)
    return answer


@asynccontextmanager
async def bench(prefill: int = 1, decode: int = 1, *options: str) -> AsyncIterator[Bench]:
    """Starts `prefill` and `decode` workers and the router; no prefill makes plain replicas."""
    blocks = Blocks()
    ps = [Worker(blocks) for _ in range(prefill)]
    ds = [Worker(blocks if prefill else None) for _ in range(decode)]
    for worker in ps + ds:
        await worker.start()
    arguments = ["--port", "0", "--health-interval", "0.2", "--deadline", "40", *options]
    for worker in ps:
        arguments += ["--prefill", worker.url]
    for worker in ds:
        arguments += ["--decode" if prefill else "--serve", worker.url]
    try:
        async with routing(parse(arguments)) as service, ClientSession() as client:
            # The first checks may run into their time limit on a busy machine.
            await until(lambda: all(worker.healthy for worker in service.fleet.workers))
            yield Bench(service, ps, ds, blocks, client)
    finally:
        for worker in ps + ds:
            worker.awake.set()
            worker.hold.set()
            await worker.die()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come; the test's own limit ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.01)
