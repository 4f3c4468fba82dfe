"""Whether an engine answers: first `/health`, then one real completion of one token."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

SERVED_NAME = "lab"
PROMPT = "def f(n):\n"  # where any will do

# A proxy from the environment must not stand between the lab and its own machine.
_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_healthy(base_url: str, *, timeout_s: float = 2.0) -> bool:
    """Whether `GET /health` answers 200."""
    try:
        with _local.open(f"{base_url}/health", timeout=timeout_s) as response:
            return response.status == 200
    except (OSError, ValueError):
        return False


def complete(
    base_url: str, prompt: str, *, max_tokens: int = 1, timeout_s: float = 60.0
) -> dict[str, Any]:
    """One greedy completion through the OpenAI-compatible API.

    Raises:
        OSError: the server cannot be reached, or answers with an error status.
    """
    body = {"model": SERVED_NAME, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    return json.loads(post(f"{base_url}/v1/completions", body, timeout_s=timeout_s))


def answers(base_url: str) -> bool:
    """Whether the engine is healthy and really generates a token."""
    if not is_healthy(base_url):
        return False
    try:
        return complete(base_url, PROMPT)["usage"]["completion_tokens"] >= 1
    except (OSError, KeyError, ValueError):
        return False


def metrics(base_url: str, *, timeout_s: float = 5.0) -> str:
    """The engine's Prometheus text.

    Raises:
        OSError: the server cannot be reached.
    """
    return get(f"{base_url}/metrics", timeout_s=timeout_s).decode()


def get(url: str, *, timeout_s: float) -> bytes:
    """The answer to a GET.

    Raises:
        OSError: the server cannot be reached, or answers with an error status.
    """
    with _local.open(url, timeout=timeout_s) as response:
        return response.read()


def post(url: str, body: Mapping[str, Any] | None = None, *, timeout_s: float) -> bytes:
    """The answer to a POST with a JSON body, or without one.

    Raises:
        OSError: the server cannot be reached, or answers with an error status.
    """
    data = b"" if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    with _local.open(request, timeout=timeout_s) as response:
        return response.read()


def is_sleeping(base_url: str, *, timeout_s: float = 10.0) -> bool:
    """Whether an engine in sleep mode sleeps (`GET /is_sleeping`, vLLM's development routes).

    Raises:
        OSError: the server cannot be reached, or has no such route.
    """
    return bool(json.loads(get(f"{base_url}/is_sleeping", timeout_s=timeout_s))["is_sleeping"])
