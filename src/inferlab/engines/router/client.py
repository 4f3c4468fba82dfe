"""What a router tells of itself, asked for by a program."""

import json
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError

from inferlab.engines import health
from inferlab.errors import LabError

_REMEDY = "先 ./lab up chapter07/pd，或换一个地址"


def workers(url: str) -> dict[str, list[str]]:
    """role → addresses of the engines behind a PD router.

    Raises:
        LabError: there is no router at the address, or it has no prefill and decode workers.
    """
    state = _asked(url, "health")
    try:
        found = {role: [each["url"] for each in state[role]] for role in ("prefill", "decode")}
    except (KeyError, TypeError):
        found = {}
    if not found or not all(found.values()):
        raise LabError(f"{url} 不是 PD 的路由：后面没有 prefill 和 decode 引擎", remedy=_REMEDY)
    return found


def all_in_rotation(url: str) -> bool:
    """Whether a router at the address gives requests to every one of its workers."""
    try:
        state = _asked(url, "health")
    except LabError:
        return False
    pools = [each for each in state.values() if isinstance(each, list)]
    return all(worker["healthy"] for pool in pools for worker in pool)


def in_flight(url: str, role: str) -> int:
    """How many requests a router's workers of a role have at this moment.

    Raises:
        LabError: there is no router at the address.
    """
    return sum(worker["in_flight"] for worker in _asked(url, "health")[role])


def paths(url: str, number: int) -> list[dict[str, Any]]:
    """What the router logged of the last requests, oldest first.

    Raises:
        LabError: there is no router at the address.
    """
    return _asked(url, "requests")[-number:]


def _asked(url: str, route: str) -> Any:
    try:
        return json.loads(health.get(f"{url.rstrip('/')}/{route}", timeout_s=10))
    except (OSError, ValueError) as error:
        if isinstance(error, HTTPError) and error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise LabError(f"{url} 的引擎还凑不齐一对 P 和 D",
                           remedy="等它们就绪；./lab logs 看原因") from None  # fmt: skip
        raise LabError(f"{url} 不是 PD 的路由（{error}）", remedy=_REMEDY) from None
