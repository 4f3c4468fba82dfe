"""NIXL's hand-over in vLLM: prefill answers with parameters, decode reads the KV blocks with them.

The parameters are good once and for a short time. Prefill frees the blocks when the first reader
says that it has them, and when nobody has come within the lease; a read after that is answered
with HTTP 200 and wrong tokens (seen with vLLM 0.32.0). So a ticket gives its parameters a single
time, and only while they are surely fresh; every retry prefills again.
Source: vllm/distributed/kv_transfer/kv_connector/v1/nixl/pull_scheduler.py, 0.32.0.
"""

import asyncio
import json
import time
from collections import deque
from typing import Any

# Decode must have the parameters in its scheduler before the lease ends: this much is for us.
USABLE_SHARE = 0.8
BEAT_S = 0.1

_ASK_PREFILL = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class StaleError(Exception):
    """The parameters are too old, or were given out before."""


class Heartbeat:
    """Since when this process has surely been awake.

    A router that was stopped finds an answer that has waited in its socket, and cannot see how
    long. It arrived after the loop's last beat, though, so age is counted from there.
    """

    def __init__(self) -> None:
        self._beats = deque([time.monotonic()] * 3, maxlen=3)

    async def run(self) -> None:
        """Beats for ever."""
        while True:
            self._beats.append(time.monotonic())
            await asyncio.sleep(BEAT_S)

    def awake_since(self) -> float:
        """A time (`time.monotonic()`) before which an answer read just now cannot have come.

        Not the last beat: after a stop the loop beats first and wakes the reader afterwards.
        """
        return self._beats[0]


class Ticket:
    """Prefill's parameters for one decode.

    Args:
        params: `kv_transfer_params` of prefill's answer.
        born: the earliest moment at which the lease may have begun, `time.monotonic()`.
        lease_s: length of the lease.
    """

    def __init__(self, params: dict[str, Any], born: float, lease_s: float) -> None:
        self._params: dict[str, Any] | None = params
        self._born, self._lease_s = born, lease_s

    @property
    def ends(self) -> float:
        """When the lease may end, `time.monotonic()`."""
        return self._born + self._lease_s

    def redeem(self) -> dict[str, Any]:
        """The parameters, once.

        Raises:
            StaleError: they were taken before, or most of the lease is over.
        """
        params, self._params = self._params, None
        age = time.monotonic() - self._born
        if params is None or age > USABLE_SHARE * self._lease_s:
            raise StaleError(f"KV 参数已过 {age:.1f} s，租约 {self._lease_s:g} s")
        return params


def prefill_body(content: dict[str, Any]) -> bytes:
    """The request for prefill: the same prompt, one token, no stream.

    Nothing that shapes the prompt is touched: decode would read blocks of another prompt.
    """
    body = {**content, "stream": False, "max_tokens": 1, "kv_transfer_params": _ASK_PREFILL}
    for name in ("stream_options", "min_tokens"):
        body.pop(name, None)
    if "max_completion_tokens" in body:
        body["max_completion_tokens"] = 1
        del body["max_tokens"]
    return json.dumps(body).encode()


def decode_body(content: dict[str, Any], ticket: Ticket) -> bytes:
    """The request for decode: the client's own, with prefill's parameters.

    Raises:
        StaleError: see `Ticket.redeem`.
    """
    return json.dumps({**content, "kv_transfer_params": ticket.redeem()}).encode()


def params_of(answer: bytes) -> dict[str, Any] | None:
    """`kv_transfer_params` of prefill's answer; None when there are none."""
    try:
        params = json.loads(answer).get("kv_transfer_params")
    except (ValueError, AttributeError):
        return None
    return params if isinstance(params, dict) and params else None


def refusal(content: dict[str, Any]) -> str:
    """Why a request cannot be split; empty when it can.

    Several prompts or samples are several requests inside the engine, and all would read with
    the same parameters.
    """
    for name in ("n", "best_of"):
        if content.get(name) not in (None, 1):
            return f"P/D 分离时 {name} 只能是 1，收到 {content[name]!r}：请拆成多个请求"
    prompt = content.get("prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        return f"P/D 分离时一个请求只能有一个 prompt，收到 {len(prompt)} 个：请拆成多个请求"
    return ""
