"""Perplexity of a text through a running engine, so that what is judged is what is served.

The definition is that of `perplexity()` in scripts/train_lab_model.py: each file is tokenised by
itself and cut into windows; a window's first token is given and not predicted; the negative
log-likelihood is averaged over the predicted tokens of all files. Windows do not overlap, so the
tokens at a window's start have little context: the figure is a little higher than one with a
sliding window, and only comparable with itself.
"""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inferlab.errors import LabError

END_OF_TEXT = "<|endoftext|>"
WINDOW_TOKENS = 1024

# A proxy from the environment must not stand between the lab and its own machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Likelihood:
    """How well a text was predicted; two of them add up to that of both texts.

    Attributes:
        nats: negative log-likelihood, summed.
        tokens: predicted tokens.
        size_bytes: UTF-8 bytes of the predicted tokens.
    """

    nats: float = 0.0
    tokens: int = 0
    size_bytes: int = 0

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood a token; depends on the tokenizer."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between models with different tokenizers."""
        return self.nats / math.log(2) / self.size_bytes

    def __add__(self, other: "Likelihood") -> "Likelihood":
        return Likelihood(
            self.nats + other.nats, self.tokens + other.tokens, self.size_bytes + other.size_bytes
        )


def perplexity(
    text: str, url: str, *, model: str = "lab", window_tokens: int = WINDOW_TOKENS
) -> Likelihood:
    """The likelihood of a text of one or more files, separated by `END_OF_TEXT`.

    Args:
        url: a vLLM server's address, with or without `/v1`.
        window_tokens: at most the server's `max-model-len`.

    Raises:
        LabError: the server cannot be reached, refuses the request, gives no log-probabilities of
            the prompt, or the text has no token to predict.
    """
    files = text.split(END_OF_TEXT)
    total = sum(
        (file_likelihood(file, url, model=model, window_tokens=window_tokens) for file in files),
        Likelihood(),
    )
    if not total.tokens:
        raise LabError("文本太短，没有可以预测的 token", remedy="换一段至少两个 token 的文本")
    return total


def file_likelihood(
    text: str, url: str, *, model: str = "lab", window_tokens: int = WINDOW_TOKENS
) -> Likelihood:
    """The likelihood of one file; zero tokens when it is shorter than two. Errors as above."""
    server = url.rstrip("/").removesuffix("/v1")
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    ids = post_json(f"{server}/tokenize", body)["tokens"]
    parts = (_window_likelihood(server, model, window) for window in windows(ids, window_tokens))
    return sum(parts, Likelihood())


def windows(ids: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    """Consecutive windows of at most `length` ids; a last one of a single id is left out."""
    for start in range(0, len(ids), length):
        window = ids[start : start + length]
        if len(window) >= 2:
            yield window


def _window_likelihood(server: str, model: str, window: Sequence[int]) -> Likelihood:
    # max_tokens 0 with echo: the engine scores the prompt and generates nothing.
    body = {"model": model, "prompt": window, "max_tokens": 0, "echo": True, "logprobs": 0}
    choice = post_json(f"{server}/v1/completions", body)["choices"][0]
    scores = (choice.get("logprobs") or {}).get("token_logprobs") or []
    if len(scores) != len(window) or None in scores[1:]:
        raise LabError(
            f"{server} 没有给出 prompt 中每个 token 的 logprob", remedy="用支持 echo 的 vLLM 服务"
        )
    predicted = post_json(f"{server}/detokenize", {"model": model, "tokens": window[1:]})["prompt"]
    return Likelihood(-math.fsum(scores[1:]), len(window) - 1, len(predicted.encode()))


def post_json(url: str, body: dict[str, Any], timeout_s: float = 300.0) -> dict[str, Any]:
    """The answer to one JSON request; a LabError when there is none or it is an error."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with _direct.open(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", "replace")
        raise LabError(f"{url} 回答 {error.code}：{said}", remedy="检查模型名和窗口长度") from error
    except (OSError, ValueError) as error:
        raise LabError(
            f"{url} 没有正常回答（{error}）", remedy="用 ./lab status 查看引擎"
        ) from error
