"""Prefill and decode rates of a running engine, apart, through its HTTP interface.

Prefill is timed by requests of one output token; decode by the time per token after the first, with
a known number of sequences in flight. Scheduler, sampling and HTTP are included: that is the point.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.measure.statistics import Interval, mean_interval


@dataclass(frozen=True)
class SweepPoint:
    """One condition.

    Attributes:
        size: prompt tokens (prefill) or sequences in flight (decode).
        context: mean tokens in the cache during decode; the prompt's length in prefill.
        seconds: of one step: the whole prompt (prefill), or one token for every sequence (decode).
    """

    size: int
    context: float
    seconds: Interval

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens a second when `seconds` is of a prefill; `size` ÷ step time when of a
        decode."""
        return self.size / self.seconds.mean


def random_prompt(tokens: int, vocabulary: int, seed: int) -> list[int]:
    """Token ids that no prefix cache has seen; the lowest ids, which may be special, are
    avoided."""
    chosen = random.Random(seed)
    return [chosen.randrange(300, vocabulary) for _ in range(tokens)]


def prefill_sweep(
    endpoint: Endpoint, lengths: Sequence[int], vocabulary: int, *, repeats: int = 5
) -> list[SweepPoint]:
    """Time to first token of single prompts, one at a time; each prompt is new, so nothing is
    cached.

    Raises:
        LabError: the endpoint cannot be used, or a request failed.
    """
    points = []
    for length in lengths:
        seeds = range(length * 1000, length * 1000 + repeats + 1)
        specs = [RequestSpec(random_prompt(length, vocabulary, seed), 1) for seed in seeds]
        samples = all_answered(run_closed_loop(endpoint, specs, 1))[1:]  # the first one warms up
        seconds = mean_interval([(sample.ttft_ms or 0.0) / 1e3 for sample in samples])
        points.append(SweepPoint(length, length, seconds))
    return points


def decode_sweep(
    endpoint: Endpoint,
    batches: Sequence[int],
    vocabulary: int,
    *,
    prompt_tokens: int = 64,
    output_tokens: int = 64,
    repeats: int = 5,
) -> list[SweepPoint]:
    """Seconds of a decode step with so many sequences in flight: the mean TPOT of each wave.

    Every wave starts its sequences together and lets them all run to `output_tokens`.

    Raises:
        LabError: the endpoint cannot be used, or a request failed.
    """
    points = []
    for batch in batches:
        steps = []
        for repeat in range(repeats + 1):
            specs = [
                RequestSpec(
                    random_prompt(
                        prompt_tokens, vocabulary, seed=batch * 10_000 + repeat * 1000 + i
                    ),
                    output_tokens,
                    ignore_eos=True,
                )
                for i in range(batch)
            ]
            samples = all_answered(run_closed_loop(endpoint, specs, batch))
            steps.append(sum(sample.tpot_ms or 0.0 for sample in samples) / len(samples) / 1e3)
        context = prompt_tokens + output_tokens / 2
        points.append(SweepPoint(batch, context, mean_interval(steps[1:])))
    return points
