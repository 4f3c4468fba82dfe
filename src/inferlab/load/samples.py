"""What is asked of a server, and what was seen of each answer: plain data, no third-party code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

Message = Mapping[str, str]
Prompt = str | Sequence[int] | Sequence[Message]


class Status(StrEnum):
    """How a request ended. Everything but `OK` and `CANCELLED` is a failure of its own kind."""

    OK = "ok"
    CONNECT_ERROR = "connect_error"
    HTTP_ERROR = "http_error"
    NOT_STREAMING = "not_streaming"
    BAD_RESPONSE = "bad_response"
    ERROR_EVENT = "error_event"
    CUT = "cut"
    TRUNCATED = "truncated"
    NO_USAGE = "no_usage"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request.

    Args:
        prompt: text, token ids (completions only), or chat messages (chat only; a text becomes
            one user message).
        max_tokens: longest answer in tokens.
        min_tokens: shortest answer; vLLM and SGLang extension.
        ignore_eos: go on past the end-of-sequence token; vLLM and SGLang extension.
        temperature: 0 is greedy.
        extra: further body fields as they are (`seed`, `priority`, `lora_path`, …).
        label: class of the request, to report classes apart (`chat`, `long`).
        keep_text: keep the answer's text in the sample; costs JSON parsing after the stream's end.
    """

    prompt: Prompt
    max_tokens: int = 128
    min_tokens: int | None = None
    ignore_eos: bool = False
    temperature: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    keep_text: bool = False


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One request as the client saw it. Times are seconds since the run's start.

    `chunk_s[i]` is when the i-th chunk that carried tokens arrived, with `chunk_tokens[i]` tokens.
    `tokens_estimated` says that the server did not report usage with every chunk, so the final
    count was spread evenly over the chunks.
    """

    index: int
    scheduled_s: float
    sent_s: float
    finished_s: float
    status: Status
    chunk_s: tuple[float, ...] = field(default=(), repr=False)
    chunk_tokens: tuple[int, ...] = field(default=(), repr=False)
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    tokens_estimated: bool = False
    finish_reason: str = ""
    error: str = ""
    label: str = ""
    text: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the whole answer came, with its usage and `[DONE]`."""
        return self.status is Status.OK

    @property
    def first_token_s(self) -> float | None:
        """When the first token arrived; None when none did."""
        return self.chunk_s[0] if self.chunk_s else None

    @property
    def send_delay_ms(self) -> float:
        """How late the request left the client: the client's own fault, never the server's."""
        return (self.sent_s - self.scheduled_s) * 1e3

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token from the *scheduled* time, so that waiting in the client counts."""
        return (self.chunk_s[0] - self.scheduled_s) * 1e3 if self.chunk_s else None

    @property
    def ttft_from_send_ms(self) -> float | None:
        """Time to first token from the moment of sending: hides queueing in the client."""
        return (self.chunk_s[0] - self.sent_s) * 1e3 if self.chunk_s else None

    @property
    def e2e_ms(self) -> float:
        """From the scheduled time to the end of the stream."""
        return (self.finished_s - self.scheduled_s) * 1e3

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first chunk; None when no token followed it.

        Divides by the tokens that really came after the first chunk. Dividing by n - 1 is wrong
        when the first chunk carries several: with chunks of 4 it reports 19.05 for 20.0 ms.
        """
        later = sum(self.chunk_tokens[1:])
        return (self.chunk_s[-1] - self.chunk_s[0]) * 1e3 / later if later else None

    @property
    def itl_ms(self) -> list[float]:
        """Inter-token latency of each token after the first chunk.

        A gap that brought k tokens counts as k latencies of gap ÷ k, so speculative decoding and
        multi-token chunks do not look slower than they are. `chunk_gap_ms` has the gaps as seen.
        """
        latencies: list[float] = []
        for gap, tokens in zip(self.chunk_gap_ms, self.chunk_tokens[1:], strict=True):
            latencies += [gap / tokens] * tokens
        return latencies

    @property
    def chunk_gap_ms(self) -> list[float]:
        """Time between successive chunks: what a reader at the screen feels as a stall."""
        times = self.chunk_s
        return [(b - a) * 1e3 for a, b in pairwise(times)]
