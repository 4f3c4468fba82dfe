"""What is sent: prompts and lengths, drawn from the run's one generator.

Prompts are token ids unless a text is given: ids make the length exact on every engine, but they
are noise, which distorts speculative decoding. For that, and for the chat interface, pass a text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from inferlab.errors import UsageError
from inferlab.load.arrivals import TimedRequest, merge
from inferlab.load.samples import RequestSpec

_LENGTHS = re.compile(r"(\d+)(?:-(\d+)|~(\d+(?:\.\d+)?))?")
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in tokens.

    `Lengths(128)` is fixed, `Lengths(64, 256)` uniform between both ends, `Lengths(512, cv=0.8)`
    log-normal with that mean and coefficient of variation.
    """

    low: int
    high: int | None = None
    cv: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Lengths":
        """Reads `128`, `64-256` or `512~0.8`.

        Raises:
            UsageError: it is none of these.
        """
        found = _LENGTHS.fullmatch(text.strip())
        if not found or int(found[1]) < 1 or (found[2] and int(found[2]) < int(found[1])):
            raise UsageError(f"看不懂长度 {text!r}", remedy="写 128、64-256 或 512~0.8（均值~CV）")
        return cls(int(found[1]), int(found[2]) if found[2] else None, float(found[3] or 0))

    def draw(self, random: Random) -> int:
        """One length, at least 1."""
        if self.high is not None:
            return random.randint(self.low, self.high)
        if not self.cv:
            return self.low
        sigma = math.sqrt(math.log(1 + self.cv**2))
        return max(1, round(random.lognormvariate(math.log(self.low) - sigma**2 / 2, sigma)))


@dataclass(frozen=True, slots=True)
class Source:
    """Where prompt content comes from.

    Args:
        vocabulary: token ids are drawn from 16 up to this; must not exceed the model's own.
        text: when given, prompts are slices of it at word starts, about 4 characters a token.
    """

    vocabulary: int = 2048
    text: str = field(default="", repr=False)

    def draw(self, tokens: int, random: Random) -> str | list[int]:
        """A prompt of `tokens` tokens (about that many for a text)."""
        if not self.text:
            return random.choices(range(min(16, self.vocabulary - 1), self.vocabulary), k=tokens)
        wanted = tokens * CHARS_PER_TOKEN
        start = random.randrange(max(1, len(self.text) - wanted))
        start = max(self.text.find(" ", start), 0)
        piece = self.text[start : start + wanted]
        while len(piece) < wanted:
            piece += self.text[: wanted - len(piece)]
        return piece


def random_requests(
    count: int, prompt: Lengths, output: Lengths, random: Random, *,
    source: Source | None = None, exact_output: bool = True, label: str = "",
) -> list[RequestSpec]:  # fmt: skip
    """Unrelated requests with drawn lengths.

    Args:
        count: how many.
        prompt: prompt lengths.
        output: answer lengths.
        random: the run's generator.
        source: of the prompts' content.
        exact_output: ignore the end-of-sequence token, so that answers have the drawn length.
        label: class of the requests.
    """
    source = source or Source()
    return [
        RequestSpec(
            source.draw(prompt.draw(random), random),
            max_tokens=output.draw(random),
            ignore_eos=exact_output,
            label=label,
        )
        for _ in range(count)
    ]


def shared_prefixes(
    count: int, prompt_tokens: int, hit_ratio: float, output: Lengths, random: Random, *,
    groups: int = 1, block_tokens: int = 16, source: Source | None = None,
) -> list[RequestSpec]:  # fmt: skip
    """Requests whose prompts share prefixes, so that a prefix cache can hit a chosen ratio.

    The ratio counts prompt tokens over the whole run, the first (missing) request of each group
    included; the prefix is as many whole blocks as come nearest. `expected_hit_ratio` gives what
    an unlimited cache reaches.

    Args:
        count: how many requests, spread over the groups in random order.
        prompt_tokens: length of each prompt.
        hit_ratio: 0 to below 1.
        output: answer lengths.
        random: the run's generator.
        groups: number of different prefixes.
        block_tokens: the engine's KV block size.
        source: of the prompts' content; token ids only.

    Raises:
        UsageError: the ratio cannot be reached with so few requests or so short a prompt.
    """
    source = source or Source()
    wanted = hit_ratio * prompt_tokens * count / max(1, count - groups)
    blocks = round(wanted / block_tokens)
    if not 0 <= hit_ratio < 1 or blocks * block_tokens >= prompt_tokens or source.text:
        raise UsageError(
            f"{count} 个请求、{groups} 组前缀、{prompt_tokens} token 的 prompt "
            f"达不到命中率 {hit_ratio:g}",
            remedy="增加请求数、减少组数或降低命中率；前缀负载只支持 token id",
        )
    prefix = blocks * block_tokens
    prefixes = [source.draw(prefix, random) for _ in range(groups)]
    order = [prefixes[number % groups] for number in range(count)]
    random.shuffle(order)
    return [
        RequestSpec(
            [*map(int, start), *map(int, source.draw(prompt_tokens - prefix, random))],
            max_tokens=output.draw(random),
            ignore_eos=True,
        )
        for start in order
    ]


def expected_hit_ratio(specs: Sequence[RequestSpec], block_tokens: int = 16) -> float:
    """Share of prompt tokens that an unlimited prefix cache finds when requests come one by one.

    Whole blocks only, and never the whole prompt: an engine computes at least its last token.
    """
    seen: set[int] = set()
    hits = total = 0
    for spec in specs:
        ids = list(spec.prompt)
        chain = 0
        total += len(ids)
        matching = True
        for start in range(0, len(ids) - block_tokens + 1, block_tokens):
            chain = hash((chain, *ids[start : start + block_tokens]))  # type: ignore[arg-type]
            matching = matching and chain in seen and start + block_tokens < len(ids)
            hits += block_tokens * matching
            seen.add(chain)
    return hits / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A multi-turn chat: each turn is sent after the answer before it and a pause to think.

    Args:
        turns: the user's messages in order.
        max_tokens: longest answer per turn.
        system: system message, or text in front for the completions interface.
        think_s: pause between an answer's end and the next turn's scheduled time, one per turn.
        ignore_eos: answers of exactly `max_tokens`.
    """

    turns: tuple[str, ...]
    max_tokens: int = 128
    system: str = ""
    think_s: tuple[float, ...] = ()
    ignore_eos: bool = False


def conversations(
    count: int, turns: Lengths, message: Lengths, output: Lengths, random: Random, *,
    text: str, system: str = "", think_mean_s: float = 0.0,
) -> list[Conversation]:  # fmt: skip
    """Multi-turn chats with drawn numbers of turns, message lengths and exponential think times."""
    source = Source(text=text)

    def one() -> Conversation:
        number = turns.draw(random)
        messages = tuple(str(source.draw(message.draw(random), random)) for _ in range(number))
        pauses = tuple(
            random.expovariate(1 / think_mean_s) if think_mean_s else 0.0 for _ in messages
        )
        return Conversation(messages, output.draw(random), system, pauses, ignore_eos=True)

    return [one() for _ in range(count)]


def inject_long(
    chat: Sequence[TimedRequest], every_s: float, prompt_tokens: int, output_tokens: int,
    random: Random, *, source: Source | None = None,
) -> list[TimedRequest]:  # fmt: skip
    """A chat load with one long prompt every `every_s` seconds; labels `chat` and `long`.

    What the long prefills do to the chat's inter-token latency is then read off by label.
    """
    if not chat or every_s <= 0:
        raise UsageError("注入长 prompt 需要非空的对话负载和正的间隔")
    source = source or Source()
    end = chat[-1].at_s
    times = [every_s * (number + 0.5) for number in range(int(end / every_s + 0.5))]
    long = [
        TimedRequest(at, RequestSpec(source.draw(prompt_tokens, random), output_tokens,
                                     ignore_eos=True, label="long"))
        for at in times
    ]  # fmt: skip
    named = [TimedRequest(item.at_s, replace(item.spec, label="chat")) for item in chat]
    return merge(named, long)
