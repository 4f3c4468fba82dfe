"""What a benchmark sends: a workload, its arrivals, and how long; each run built from one seed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from random import Random
from typing import Any, Literal

from inferlab.errors import UsageError
from inferlab.load import RequestSpec, RunResult, arrivals
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import OnSample, closed_loop, open_loop, run_conversations
from inferlab.load.traces import TraceOptions, load_trace
from inferlab.load.workloads import (
    Lengths,
    Source,
    conversations,
    random_requests,
    shared_prefixes,
)
from inferlab.measure.window import WARM_UP_SHARE
from inferlab.repository import root

Kind = Literal["random", "prefix", "chat", "file"]
Arrival = Literal["poisson", "binomial", "constant", "gamma"]
PROMPT, OUTPUT, TURNS = Lengths(128), Lengths(64), Lengths(3)
POOL = 2000
"""Requests prepared for a run that only its duration ends and whose prompts are made at once."""


@dataclass(frozen=True, slots=True)
class Level:
    """How much load: open loop at a rate, closed loop at a concurrency, or a trace's own times."""

    rate_per_s: float = 0.0
    concurrency: int = 0

    @property
    def labels(self) -> dict[str, Any]:
        """As in a record's figures."""
        if self.rate_per_s:
            return {"rate_per_s": self.rate_per_s}
        return {"concurrency": self.concurrency} if self.concurrency else {"trace": True}

    def __str__(self) -> str:
        if self.rate_per_s:
            return f"{self.rate_per_s:g} req/s"
        return f"并发 {self.concurrency}" if self.concurrency else "按 trace 的时刻"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked.

    Args:
        kind: unrelated random prompts, shared prefixes, multi-turn chats, or a file's requests.
        prompt: prompt lengths; of each message for `chat`.
        output: answer lengths.
        prefix_tokens: shared part of the prompt; or give `hit_ratio`.
        hit_ratio: share of prompt tokens that a prefix cache can hit.
        prefix_groups: number of different prefixes.
        turns: turns of a chat.
        think_s: mean pause between turns.
        file: JSONL or a published trace.
        vocabulary: token ids are drawn below it.
    """

    kind: Kind = "random"
    prompt: Lengths = PROMPT
    output: Lengths = OUTPUT
    prefix_tokens: int = 0
    hit_ratio: float = 0.0
    prefix_groups: int = 1
    turns: Lengths = TURNS
    think_s: float = 0.0
    file: Path | None = None
    vocabulary: int = 2048

    def specs(self, number: int, random: Random, api: str) -> list[RequestSpec]:
        """`number` requests; a file may hold fewer."""
        source = Source(self.vocabulary, heldout_text() if api == "chat" else "")
        if self.kind == "file":
            return [item.spec for item in self.trace(TraceOptions(limit=number), random)]
        if self.kind == "prefix":
            return shared_prefixes(
                number, self.prompt.low, self._hit_ratio(number), self.output, random,
                groups=self.prefix_groups, source=source,
            )  # fmt: skip
        return random_requests(number, self.prompt, self.output, random, source=source)

    def endless(self, random: Random, api: str) -> Iterator[RequestSpec]:
        """Requests for a run that its duration ends."""
        if self.kind != "random":
            yield from self.specs(POOL, random, api)
            return
        for _ in count():
            yield from self.specs(1, random, api)

    def trace(self, options: TraceOptions, random: Random) -> list[arrivals.TimedRequest]:
        """The file's requests with their times.

        Raises:
            UsageError: the file cannot be read, or holds no request.
        """
        assert self.file is not None
        seed = random.randrange(2**31)
        timed = load_trace(self.file, replace(options, seed=seed, vocabulary=self.vocabulary))
        if not timed:
            raise UsageError(f"{self.file} 里没有可用的请求", remedy="检查文件内容")
        return timed

    def _hit_ratio(self, number: int) -> float:
        if not self.prefix_tokens:
            return self.hit_ratio
        return self.prefix_tokens / self.prompt.low * max(0, number - self.prefix_groups) / number


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload with its arrivals.

    Args:
        workload: what is asked.
        arrival: process of the send times at a rate; binomial is Poisson with a fixed count, in the
            ramp and after it.
        cv: coefficient of variation of gamma gaps.
        duration_s: send for so long; 0 when `requests` ends the run.
        requests: send so many; 0 when `duration_s` ends the run.
        speed: a trace is played so many times as fast.
        ramp_s: warm-up, if longer than a tenth; a closed loop's places begin over so long.
    """

    workload: Workload = Workload()
    arrival: Arrival = "poisson"
    cv: float = 2.0
    duration_s: float = 30.0
    requests: int = 0
    speed: float = 1.0
    ramp_s: float = 0.0

    def run(
        self, endpoint: Endpoint, level: Level, seed: str, on_sample: OnSample | None = None
    ) -> RunResult:
        """Sends one run at one level to an endpoint that was checked.

        Raises:
            UsageError: workload, level and endpoint do not fit together.
        """
        random = Random(seed)
        if self.workload.kind == "chat":
            return self._chat(endpoint, level, random, on_sample)
        if level.concurrency:
            specs = self._closed(random, endpoint.api)
            return closed_loop(
                endpoint, specs, level.concurrency,
                duration_s=self.duration_s or None, ramp_s=self.ramp_s, check=False,
                on_sample=on_sample,
            )  # fmt: skip
        timed = self._open(level, random, endpoint.api)
        return open_loop(endpoint, timed, check=False, on_sample=on_sample)

    @property
    def warm_up(self) -> float:
        """Share of the scheduled time that is not counted: a tenth, or the ramp where longer."""
        ramp = self.ramp_s / self.duration_s if self.duration_s else 0.0
        return min(0.9, max(WARM_UP_SHARE, ramp))

    def expected_requests(self, level: Level) -> int:
        """About how many requests a run has; 0 when that is not known before."""
        return self.requests or round(level.rate_per_s * self.duration_s)

    def _closed(self, random: Random, api: str) -> Iterable[RequestSpec]:
        if self.requests:
            return self.workload.specs(self.requests, random, api)
        return self.workload.endless(random, api)

    def _open(self, level: Level, random: Random, api: str) -> list[arrivals.TimedRequest]:
        if not level.rate_per_s:
            span = self.duration_s * self.speed
            options = TraceOptions(limit=self.requests, duration_s=span, speed=self.speed)
            return self.workload.trace(options, random)
        times = self._times(level.rate_per_s, random)
        return arrivals.schedule(times, self.workload.specs(len(times), random, api))

    def _times(self, rate_per_s: float, random: Random) -> list[float]:
        spans_s = (
            [self.requests / rate_per_s]
            if self.requests
            else [self.ramp_s, self.duration_s - self.ramp_s]
        )
        times = {
            "poisson": lambda: arrivals.poisson(rate_per_s, random),
            "binomial": lambda: arrivals.binomial(rate_per_s, spans_s, random),
            "constant": lambda: arrivals.constant(rate_per_s),
            "gamma": lambda: arrivals.gamma(rate_per_s, self.cv, random),
        }[self.arrival]()
        if self.requests:
            return arrivals.first(times, self.requests)
        found = list(takewhile(lambda at: at < self.duration_s, times))
        if not found:
            raise UsageError(
                f"{self.duration_s:g} s 内以 {rate_per_s:g} req/s 一个请求也不会到达",
                remedy="加长 --duration 或提高 --rate",
            )
        return found

    def _chat(
        self, endpoint: Endpoint, level: Level, random: Random, on_sample: OnSample | None
    ) -> RunResult:
        if not level.rate_per_s:
            raise UsageError("chat 负载按到达率开始对话", remedy="用 --rate 给出每秒开始几段对话")
        load = self.workload
        starts = self._times(level.rate_per_s, random)
        chats = conversations(
            len(starts), load.turns, load.prompt, load.output, random,
            text=heldout_text(), think_mean_s=load.think_s,
        )  # fmt: skip
        return run_conversations(endpoint, chats, starts, check=False, on_sample=on_sample)


def heldout_text() -> str:
    """Text that prompts are cut from where token ids will not do.

    Raises:
        UsageError: this clone has none.
    """
    path = root() / "models" / "heldout.txt"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"读不了 {path}（{error.strerror}）", remedy="用 --dataset 给出自己的文本"
        ) from None
