"""What the null server does with a request: its script, and the bytes it answers with."""

import json
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Script:
    """Timing and misbehaviour of the null server. Shares are probabilities, drawn from one seed.

    Args:
        ttft_ms: from the moment a slot is free to the first chunk.
        itl_ms: time per token after it; a chunk of k tokens comes after k times as long.
        ttft_jitter: relative half-width of a uniform spread of `ttft_ms`.
        prefill_us_per_token: added to `ttft_ms` for each prompt token.
        chunk_tokens: tokens per chunk.
        step_ms: of an engine that computes its batch in steps: what falls due within one leaves at
            its end, of all requests together; 0 for each at its own time.
        slots: requests served at once, the others wait in line; 0 means no limit.
        stall_share: share of requests that pause once, in mid-stream.
        stall_ms: length of that pause.
        fail_500: share answered with HTTP 500.
        cut: share whose connection breaks in mid-stream.
        truncated: share that ends cleanly in mid-stream, without usage and `[DONE]`.
        no_usage: share that ends with `[DONE]` but without usage.
        error_event: share that reports an error inside the stream of a 200, then `[DONE]`.
        continuous_usage: report the running count when asked to.
        refuse_options: answer 400 when `continuous_usage_stats` is asked for.
        no_stream: answer with one JSON body, whatever was asked.
        api_key: required bearer token; empty for none.
        model: the one model served.
        seed: of the draws.
    """

    ttft_ms: float = 20.0
    itl_ms: float = 5.0
    ttft_jitter: float = 0.0
    prefill_us_per_token: float = 0.0
    chunk_tokens: int = 1
    step_ms: float = 0.0
    slots: int = 0
    stall_share: float = 0.0
    stall_ms: float = 2000.0
    fail_500: float = 0.0
    cut: float = 0.0
    truncated: float = 0.0
    no_usage: float = 0.0
    error_event: float = 0.0
    continuous_usage: bool = True
    refuse_options: bool = False
    no_stream: bool = False
    api_key: str = ""
    model: str = "lab"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request: its end, and where (chunk number) it stalls or breaks."""

    end: str = "ok"
    ttft_s: float = 0.0
    stall_at: int = -1
    break_at: int = -1


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants."""

    chat: bool
    prompt_tokens: int
    max_tokens: int
    continuous: bool
    user: str = ""


def draw_fate(script: Script, ask: Ask, random: Random) -> Fate:
    """Draws what happens to the next request; every request takes the same number of draws."""
    kind, jitter, stalls, where = (random.random() for _ in range(4))
    chunks = -(-ask.max_tokens // script.chunk_tokens)
    middle = max(1, int(where * chunks))
    spread = 1 + script.ttft_jitter * (2 * jitter - 1)
    prefill_s = script.prefill_us_per_token * ask.prompt_tokens / 1e6
    end = "ok"
    for name in ("fail_500", "cut", "truncated", "no_usage", "error_event"):
        share = getattr(script, name)
        if kind < share:
            end = name
            break
        kind -= share
    return Fate(
        end=end,
        ttft_s=script.ttft_ms * spread / 1e3 + prefill_s,
        stall_at=middle if stalls < script.stall_share else -1,
        break_at=middle if end in ("cut", "truncated", "error_event") else -1,
    )


def parse_ask(path: str, body: bytes) -> tuple[Ask, dict[str, Any]]:
    """Reads a request body.

    Raises:
        ValueError: it is not a JSON object.
    """
    content = json.loads(body)
    if not isinstance(content, dict):
        raise ValueError("the body is not a JSON object")
    options = content.get("stream_options") or {}
    return (
        Ask(
            chat="chat" in path,
            prompt_tokens=_prompt_tokens(content),
            max_tokens=max(1, int(content.get("max_tokens") or 16)),
            continuous=bool(options.get("continuous_usage_stats")),
            user=str(content.get("user") or ""),
        ),
        content,
    )


def _prompt_tokens(content: dict[str, Any]) -> int:
    prompt = content.get("prompt")
    if isinstance(prompt, list):
        return len(prompt)
    texts = [str(message.get("content")) for message in content.get("messages") or []]
    return max(1, len(str(prompt or " ".join(texts)).split()))


@lru_cache(maxsize=512)
def answer(ask: Ask, chunk_tokens: int, counts: bool, usage: bool) -> tuple[bytes, ...]:
    """The bytes to send for a whole answer, one piece a chunk, made once for each shape of request.

    Args:
        ask: the request, its `user` left out.
        chunk_tokens: tokens per chunk.
        counts: give the running count with every chunk.
        usage: end with the usage block.
    """
    pieces: list[bytes] = []
    sent = 0
    while sent < ask.max_tokens:
        tokens = min(chunk_tokens, ask.max_tokens - sent)
        sent += tokens
        last = sent == ask.max_tokens
        shown = sent if counts else 0
        pieces.append(_chunk(ask.chat, tokens, ask.prompt_tokens, shown, last))
    pieces[0] = STREAM_HEAD + pieces[0]
    pieces[-1] += ending(ask.chat, ask.prompt_tokens, sent, usage)
    return tuple(pieces)


def _chunk(chat: bool, tokens: int, prompt_tokens: int, sent: int, last: bool) -> bytes:
    """One event with `tokens` tokens, as an HTTP chunk; with the running count when `sent` > 0."""
    text = " x" * tokens
    part: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
    choice = {"index": 0, **part, "finish_reason": "length" if last else None}
    event: dict[str, Any] = _envelope(chat) | {"choices": [choice]}
    if sent:
        event["usage"] = _usage(prompt_tokens, sent)
    return http_chunk(b"data: " + _json(event) + b"\n\n")


def ending(chat: bool, prompt_tokens: int, sent: int, usage: bool) -> bytes:
    """The last events of a whole answer and the end of the HTTP body."""
    event = _envelope(chat) | {"choices": [], "usage": _usage(prompt_tokens, sent)}
    tail = http_chunk(b"data: " + _json(event) + b"\n\n") if usage else b""
    return tail + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def whole_answer(ask: Ask, content: dict[str, Any]) -> bytes:
    """An answer of one token in one JSON body. Whoever asks for a handover gets parameters with it,
    as from vLLM's prefill worker, but they lead to no KV cache."""
    usage = {"prompt_tokens": ask.prompt_tokens, "completion_tokens": 1}
    whole: dict[str, Any] = {"choices": [{"text": " x"}], "usage": usage}
    if (content.get("kv_transfer_params") or {}).get("do_remote_decode"):
        whole["kv_transfer_params"] = {"do_remote_prefill": True, "remote_block_ids": [0]}
    return _json(whole)


def error_ending() -> bytes:
    """An error reported inside the stream, as vLLM does, and the end of the HTTP body."""
    error = {"error": {"message": "scripted failure", "type": "InternalServerError", "code": 500}}
    return http_chunk(b"data: " + _json(error) + b"\n\n") + ending(False, 0, 0, False)


def http_chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1 chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def response(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP response with a counted body."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def error_response(status: str, message: str) -> bytes:
    """An OpenAI-style error."""
    return response(status, _json({"error": {"message": message, "code": int(status[:3])}}))


def _envelope(chat: bool) -> dict[str, Any]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {"id": "cmpl-0123456789abcdef0123456789abcdef", "object": kind, "created": 1764000000,
            "model": "lab"}  # fmt: skip


def _usage(prompt_tokens: int, sent: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + sent,
        "completion_tokens": sent,
    }


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
