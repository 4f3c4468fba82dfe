"""Decode step times over batch and context, beside what the roofline alone predicts.

A point sends its requests at once, with prompts that share nothing, and counts the steps between
the last request's first token and the first request's end: there all of them decode, and nothing
else runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from random import Random
from statistics import fmean
from typing import Any

from inferlab.arithmetic.roofline import decode
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.samples import RequestSample, RequestSpec
from inferlab.load.workloads import Lengths, Source, random_requests
from inferlab.measure.under_test import UnderTest

BATCHES, CONTEXTS, OUTPUT = (1, 4, 16), (128, 1024), 48
FEWEST_STEPS = 8
MOST_DOUBLINGS = 4  # of the answers: longer ones also make the server slower to begin the last


class TooFewSteps(LabError):
    """The sequences of a point hardly decoded together."""


@dataclass(frozen=True)
class Steps:
    """Steps in which all sequences decoded.

    Attributes:
        step_ms: mean over sequences.
        context: mean tokens in a sequence's cache during these steps.
        counted: steps.
    """

    step_ms: float
    context: float
    counted: float


def measure(engine: UnderTest, given: dict[str, Any], kv_tokens: int | None) -> Iterator[Series]:
    """Each point's series as soon as it is measured, smallest first.

    Args:
        given: `batches`, `contexts` (prompt tokens), `output` (tokens decoded together at least).
        kv_tokens: what the engine's cache holds; points beyond it are left out and noted, as are
            those of more sequences than `max-num-seqs` and of a context beyond `max-model-len`.

    Yields:
        `step_ms`; with shape and ceilings also `predicted_ms`, `error_pct` (predicted ÷ measured
        - 1, in per cent). Labels: `batch`, `context`; `bound` of the prediction.

    Raises:
        LabError: a request failed. A point that left too few steps to count is noted.
    """
    batches, contexts = given.get("batches", BATCHES), given.get("contexts", CONTEXTS)
    output = int(given.get("output", OUTPUT))
    points = sorted(product(batches, contexts), key=lambda each: (each[0] * each[1], each))
    for batch, context in points:
        if why := _unfit(engine, batch, context + output, kv_tokens):
            engine.notes.setdefault("left_out", []).append(f"{batch}×{context}：{why}")
            continue
        try:
            yield from _point(engine, batch, context, output, kv_tokens)
        except TooFewSteps as error:
            engine.notes.setdefault("left_out", []).append(f"{batch}×{context}：{error.message}")


def steps_together(samples: Sequence[RequestSample]) -> Steps:
    """The steps between the last first token and the first end.

    Raises:
        TooFewSteps: there are fewer than `FEWEST_STEPS`.
    """
    start = max(sample.chunk_s[0] for sample in samples)
    end = min(sample.chunk_s[-1] for sample in samples)
    found = [_within(sample, start, end) for sample in samples]
    counted = fmean(tokens for _, tokens, _ in found)
    if counted < FEWEST_STEPS or min(tokens for _, tokens, _ in found) < 1:
        raise TooFewSteps(f"{len(samples)} 个请求只有 {counted:.0f} 步同时 decode",
                          remedy="加大 with.output")  # fmt: skip
    return Steps(
        fmean(span / tokens for span, tokens, _ in found) * 1e3,
        fmean(context for _, _, context in found),
        counted,
    )


def _within(sample: RequestSample, start: float, end: float) -> tuple[float, int, float]:
    """Seconds, tokens, and mean cached tokens of one sequence between two moments."""
    inside = [i for i, at in enumerate(sample.chunk_s) if start <= at <= end]
    if len(inside) < 2:
        return 0.0, 0, 0.0
    first, last = inside[0], inside[-1]
    before = sum(sample.chunk_tokens[: first + 1])
    tokens = sum(sample.chunk_tokens[first + 1 : last + 1])
    span = sample.chunk_s[last] - sample.chunk_s[first]
    # The step that makes token n+1 finds prompt + n tokens in the cache.
    return span, tokens, sample.prompt_tokens + before - 1 + (tokens - 1) / 2


def tokens_ahead(samples: Sequence[RequestSample]) -> int:
    """Tokens that the first sequence had when the last one got its first.

    Where the first had ended by then, all its tokens and as many again for each whole length that
    the last came later.
    """
    first = min(samples, key=lambda s: s.chunk_s[0])
    last = max(s.chunk_s[0] for s in samples)
    had = sum(n for at, n in zip(first.chunk_s, first.chunk_tokens, strict=True) if at <= last)
    length = first.chunk_s[-1] - first.chunk_s[0]
    lengths = max(1.0, (last - first.chunk_s[0]) / length) if length > 0 else 1.0
    return ceil(had * lengths)


def _wave(engine: UnderTest, specs: Sequence[RequestSpec]) -> Sequence[RequestSample]:
    return all_answered(run_closed_loop(engine.endpoint, specs, len(specs), check=False))


def _point(
    engine: UnderTest, batch: int, context: int, output: int, kv_tokens: int | None
) -> Iterator[Series]:
    labels: dict[str, Any] = {"batch": batch, "context": context}
    # The same prompts each time: the engine's prefix cache then makes the prefill short. The first
    # wave computes them; the second tells how far the first sequence is ahead of the last.
    _wave(engine, _specs(engine, batch, context, 1))
    ahead = tokens_ahead(_wave(engine, _specs(engine, batch, context, output)))
    found = _together(engine, batch, context, output + ahead + FEWEST_STEPS, kv_tokens)
    yield Series("step_ms", "ms", [each.step_ms for each in found], labels)
    yield from _prediction(engine, found, labels)


def _together(
    engine: UnderTest, batch: int, context: int, output: int, kv_tokens: int | None,
    doublings: int = MOST_DOUBLINGS,
) -> list[Steps]:  # fmt: skip
    """All repeats of a point; answers twice as long where the sequences hardly met."""
    if why := _unfit(engine, batch, context + output, kv_tokens):
        raise TooFewSteps(why)
    try:
        return _repeats(engine, batch, context, output)
    except TooFewSteps:
        if not doublings:
            raise
    return _together(engine, batch, context, 2 * output, kv_tokens, doublings - 1)


def _repeats(engine: UnderTest, batch: int, context: int, output: int) -> list[Steps]:
    specs = _specs(engine, batch, context, output)
    found = []
    for _ in range(engine.repeats):
        with engine.mark(f"decode {batch}×{context}"):
            found.append(steps_together(_wave(engine, specs)))
    return found


def _prediction(
    engine: UnderTest, found: Sequence[Steps], labels: dict[str, Any]
) -> Iterator[Series]:
    if engine.shape is None or engine.ceilings is None:
        return
    context = round(fmean(each.context for each in found))
    kv_dtype = str(engine.options.get("kv-cache-dtype", "auto"))
    work = decode(engine.shape, labels["batch"], context, kv_dtype=kv_dtype).total
    point = work.against(engine.ceilings)
    predicted = point.floor_s * 1e3
    labels = labels | {"bound": "compute" if point.bound == "compute" else "bandwidth"}
    yield Series("predicted_ms", "ms", [predicted], labels)
    errors = [(predicted / each.step_ms - 1) * 100 for each in found]
    yield Series("error_pct", "%", errors, labels)


def _specs(engine: UnderTest, batch: int, context: int, output: int) -> list[RequestSpec]:
    random, source = Random(f"{engine.seed}/{batch}/{context}"), Source(engine.vocabulary)
    return random_requests(batch, Lengths(context), Lengths(output), random, source=source)


def _unfit(engine: UnderTest, batch: int, longest: int, kv_tokens: int | None) -> str:
    limit = engine.options.get("max-model-len")
    if limit and longest > limit:
        return f"超过 max-model-len {limit}"
    if batch > engine.options.get("max-num-seqs", batch):
        return f"超过 max-num-seqs {engine.options['max-num-seqs']}"
    if kv_tokens and batch * longest > kv_tokens * 0.95:
        return f"KV cache 只有 {kv_tokens:,} token"
    return ""
