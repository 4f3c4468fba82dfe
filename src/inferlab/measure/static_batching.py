"""Static against continuous batching: the same requests, the same engine, two ways to admit them.

Static: waves of B requests, the next wave only when all of the last have ended. Continuous: B in
flight, each place takes the next request at once. Output lengths are spread widely; the wasted
slots of the first are what the second saves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from inferlab.hardware.timing import Series
from inferlab.load.runner import all_answered, closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.load.workloads import Lengths, random_requests
from inferlab.load.workloads import Source as Prompts
from inferlab.measure.under_test import UnderTest

MODES = ("static", "continuous")
BATCH, WAVES, PROMPT, OUTPUT = 8, 8, "64", "16-512"


@dataclass(frozen=True)
class Served:
    """One request in its slot; seconds after the first request's start.

    Attributes:
        slot: of the batch, from 0.
        tokens: generated.
    """

    slot: int
    start_s: float
    first_token_s: float
    end_s: float
    tokens: int


def measure(engine: UnderTest, given: dict[str, Any]) -> Iterator[Series]:
    """Both ways in turn, changing who goes first.

    Args:
        given: `batch` (8), `requests` (8 batches), `prompt`, `output` (lengths as `16-512`).

    Yields:
        at the end `output_tokens_per_s`, `makespan_s`, `slot_share` (time that slots were taken ÷
        slots × makespan), each labelled `mode`. `engine.notes["timeline"]` has the first repeat's
        requests of each mode, to be drawn.

    Raises:
        LabError: a request failed.
    """
    batch = int(given.get("batch", BATCH))
    number = int(given.get("requests", WAVES * batch))
    prompt = Lengths.parse(str(given.get("prompt", PROMPT)))
    output = Lengths.parse(str(given.get("output", OUTPUT)))
    runs: dict[str, list[list[Served]]] = {mode: [] for mode in MODES}
    try:
        for repeat in range(engine.repeats):
            for mode in MODES if repeat % 2 == 0 else MODES[::-1]:
                # Lengths are the same in both modes, prompts are not: a cached one is a gift.
                specs = requests(engine, number, prompt, output, repeat, mode)
                with engine.mark(mode):
                    runs[mode].append(_run(engine, specs, batch, mode))
    except BaseException:
        yield from _whole_rounds(engine, runs, batch)
        raise
    yield from _whole_rounds(engine, runs, batch)


def _whole_rounds(
    engine: UnderTest, runs: dict[str, list[list[Served]]], batch: int
) -> Iterator[Series]:
    rounds = min(map(len, runs.values()))
    if not rounds:
        return
    engine.notes["batch"] = batch
    engine.notes["timeline"] = {mode: timeline(found[0]) for mode, found in runs.items()}
    for mode, found in runs.items():
        yield from _series(mode, found[:rounds], batch)


def requests(
    engine: UnderTest, number: int, prompt: Lengths, output: Lengths, repeat: int, mode: str
) -> list[RequestSpec]:
    """One repeat's requests: lengths from the repeat alone, prompts also from the mode."""
    lengths = Random(f"{engine.seed}/{repeat}")
    prompts = Random(f"{engine.seed}/{repeat}/{mode}")
    source = Prompts(engine.vocabulary)
    found = []
    for _ in range(number):
        size, answer = Lengths(prompt.draw(lengths)), Lengths(output.draw(lengths))
        found += random_requests(1, size, answer, prompts, source=source)
    return found


def timeline(served: Sequence[Served]) -> list[list[float]]:
    """Rows [slot, start_s, first_token_s, end_s, tokens], to the millisecond."""
    return [
        [each.slot, *(round(t, 3) for t in (each.start_s, each.first_token_s, each.end_s)),
         each.tokens]
        for each in served
    ]  # fmt: skip


def slot_share(served: Sequence[Served], batch: int) -> float:
    """Share of slot time in which a request was being served."""
    makespan = max(each.end_s for each in served)
    return sum(each.end_s - each.start_s for each in served) / (batch * makespan)


def _run(engine: UnderTest, specs: list[RequestSpec], batch: int, mode: str) -> list[Served]:
    size = batch if mode == "static" else len(specs)
    waves = [specs[i : i + size] for i in range(0, len(specs), size)]
    found: list[Served] = []
    began = None
    for wave in waves:
        result = closed_loop(engine.endpoint, wave, batch, check=False)
        samples = all_answered(result.whole())
        began = result.origin_s if began is None else began
        found += _in_slots(samples, result.origin_s - began)
    return found


def _in_slots(samples: Sequence[Any], shift: float) -> list[Served]:
    """Each request in the slot that was free first when it started."""
    free: list[float] = []
    found = []
    for sample in sorted(samples, key=lambda each: (each.scheduled_s, each.index)):
        idle = [slot for slot, until in enumerate(free) if until <= sample.scheduled_s + 1e-6]
        slot = idle[0] if idle else len(free)
        free[slot : slot + 1] = [sample.finished_s]
        found.append(Served(slot, sample.scheduled_s + shift, sample.chunk_s[0] + shift,
                            sample.finished_s + shift, sample.output_tokens))  # fmt: skip
    return found


def _series(mode: str, runs: Sequence[Sequence[Served]], batch: int) -> Iterator[Series]:
    labels = {"mode": mode}
    spans = [max(each.end_s for each in run) for run in runs]
    tokens = [sum(each.tokens for each in run) for run in runs]
    rates = [total / span for total, span in zip(tokens, spans, strict=True)]
    yield Series("output_tokens_per_s", "tok/s", rates, labels)
    yield Series("makespan_s", "s", spans, labels)
    yield Series("slot_share", "", [slot_share(run, batch) for run in runs], labels)
