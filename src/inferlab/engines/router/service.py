"""The router put together from its parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from inferlab.engines.router.app import Front, engine_session
from inferlab.engines.router.attempts import Router
from inferlab.engines.router.exchange import Exchange
from inferlab.engines.router.handover import Heartbeat
from inferlab.engines.router.options import Options
from inferlab.engines.router.trace import Counts
from inferlab.engines.router.workers import Fleet
from inferlab.errors import LabError


@dataclass(frozen=True, slots=True)
class Service:
    """A router that listens.

    Args:
        url: its address.
        watches: the tasks beside the requests, which never end by themselves.
    """

    url: str
    fleet: Fleet
    counts: Counts
    watches: tuple[asyncio.Task[None], ...]


@asynccontextmanager
async def routing(options: Options) -> AsyncIterator[Service]:
    """Listens as long as the context is open; at its end the open requests may finish.

    Raises:
        LabError: the address cannot be listened on.
    """
    limits, counts, beat = options.limits, Counts(), Heartbeat()
    async with engine_session() as session:
        fleet = Fleet(session, options.prefill, options.serve or options.decode, limits.health_s)
        await asyncio.gather(*map(fleet.check, fleet.workers))
        router = Router(fleet, Exchange(session, limits, beat), limits, counts)
        app = Front(router, fleet, session, limits, counts).app()
        watches = (
            asyncio.create_task(fleet.watch()),
            asyncio.create_task(beat.run()),
        )
        try:
            async with _listening(app, options) as url:
                yield Service(url, fleet, counts, watches)
        finally:
            for task in watches:
                task.cancel()


@asynccontextmanager
async def _listening(app: web.Application, options: Options) -> AsyncIterator[str]:
    # Cancelling a handler when its client leaves is what aborts the request in the engine.
    drain_s = options.limits.deadline_s
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=drain_s
    )
    await runner.setup()
    try:
        await _start(web.TCPSite(runner, options.host, options.port, backlog=4096), options)
        yield f"http://{options.host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _start(site: web.TCPSite, options: Options) -> None:
    try:
        await site.start()
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise LabError(f"不能监听 {where}（{error.strerror}）", remedy="换一个 --port") from error
