"""The router's counts in the text format of Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4).
"""

from collections.abc import Callable

from inferlab.engines.router.trace import Counts
from inferlab.engines.router.workers import Fleet, Worker

_PREFIX = "inferlab_router"
_TOTALS: dict[str, tuple[str, str]] = {
    "requests": ("requests_total", "requests that arrived"),
    "retries": ("retries_total", "attempts beyond the first of a request"),
    "failed": ("failed_total", "requests that got a 502, 503 or 504 of the router"),
    "cut": ("cut_total", "streams lost after their first token"),
    "in_flight": ("in_flight", "requests being answered"),
}
_OF_WORKERS: dict[str, tuple[str, Callable[[Worker], int]]] = {
    "worker_healthy": ("1 while the worker is in rotation", lambda w: int(w.healthy)),
    "worker_in_flight": ("requests that the worker is working on", lambda w: w.in_flight),
    "worker_requests_total": ("attempts given to the worker", lambda w: w.requests),
    "worker_failures_total": ("attempts that failed on the worker", lambda w: w.failures),
}


def exposition(counts: Counts, fleet: Fleet) -> str:
    """All series."""
    lines: list[str] = []
    for field, (name, meaning) in _TOTALS.items():
        lines += [*_head(name, meaning), f"{_PREFIX}_{name} {getattr(counts, field)}"]
    for name, (meaning, value) in _OF_WORKERS.items():
        lines += _head(name, meaning)
        for role, pool in fleet.roles().items():
            for worker in pool:
                labels = f'{{role="{role}",url="{worker.url}"}}'
                lines.append(f"{_PREFIX}_{name}{labels} {value(worker)}")
    return "\n".join(lines) + "\n"


def _head(name: str, meaning: str) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    return [f"# HELP {_PREFIX}_{name} {meaning}", f"# TYPE {_PREFIX}_{name} {kind}"]
