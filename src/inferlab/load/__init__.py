"""Load: what is sent, when, and what came back. Imports nothing beyond the standard library."""

from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import run_async, run_closed_loop
from inferlab.load.samples import RequestSample, RequestSpec, Status

__all__ = [
    "Client",
    "Endpoint",
    "RequestSample",
    "RequestSpec",
    "Status",
    "run_async",
    "run_closed_loop",
]
