"""Load: what is sent, when, and what came back. Imports nothing beyond the standard library."""

from inferlab.load.arrivals import TimedRequest, schedule
from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.event_loop import run_async
from inferlab.load.runner import (
    RunResult,
    closed_loop,
    open_loop,
    run_closed_loop,
    run_conversations,
)
from inferlab.load.samples import RequestSample, RequestSpec, Status
from inferlab.load.workloads import Lengths

__all__ = [
    "Client",
    "Endpoint",
    "Lengths",
    "RequestSample",
    "RequestSpec",
    "RunResult",
    "Status",
    "TimedRequest",
    "closed_loop",
    "open_loop",
    "run_async",
    "run_closed_loop",
    "run_conversations",
    "schedule",
]
