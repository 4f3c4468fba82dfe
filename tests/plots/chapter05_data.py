"""Data of chapter 5's pictures, made by hand in the form that the measures give."""

from inferlab.arithmetic.paging import POLICIES, Lengths, slot_use
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter03 import known_shape
from inferlab.hardware.timing import Series
from inferlab.measure.metrics_watch import MetricsTable
from inferlab.plots.pareto import Operated, Service
from inferlab.plots.tuning import TuningStep
from inferlab.records.schema import Comparison, Figure

H200 = Ceilings(7.8e14, 4.3e12)


def figure(name: str, unit: str, middle: float, **labels) -> Figure:
    values = [0.97 * middle, middle, 1.03 * middle]
    return Figure.from_series(Series(name, unit, values, labels))


def metrics() -> MetricsTable:
    at = [0.1 * i for i in range(40)]
    running = [min(4.0, i // 4) for i in range(40)]
    columns = {
        "running": running,
        "waiting": [max(0.0, 6.0 - i // 4) for i in range(40)],
        "kv_usage": [0.05 * n for n in running],
        "prompt_tokens": [128.0 * min(10, i // 3) for i in range(40)],
        "generation_tokens": [3.0 * i for i in range(40)],
        "preemptions": [float(i > 20) + float(i > 30) for i in range(40)],
        "prefix_queries": [0.0] * 40,
        "prefix_hits": [0.0] * 40,
    }
    return MetricsTable(at, columns)


def slot_uses():
    requests = [Lengths(100 + 37 * i, 30 + 61 * (i % 5), 4096) for i in range(12)]
    return {name: slot_use(requests, policy) for name, policy in POLICIES.items()}


def timelines():
    lengths = [4, 9, 2, 7, 8, 3, 5, 6]
    static, continuous, free = [], [], [0.0] * 4
    for i, length in enumerate(lengths):
        start = 0.0 if i < 4 else 9.0
        static.append([i % 4, start, start + 0.4, start + length, 10 * length])
        slot = free.index(min(free))
        continuous.append([slot, free[slot], free[slot] + 0.4, free[slot] + length, 10 * length])
        free[slot] += length
    return {"static": static, "continuous": continuous}


def chunks():
    rows = ((512, 900, 30), (2048, 600, 80), (8192, 450, 310))
    return {n: (figure("ttft", "ms", ttft), figure("itl", "ms", itl)) for n, ttft, itl in rows}


def grid() -> list[Figure]:
    found = []
    for context in (128, 1024, 4096):
        for batch in (1, 4, 16, 64):
            ms = 5 + 0.02 * batch + batch * context * 3e-5
            labels = {"batch": batch, "context": context}
            found += [figure("step_ms", "ms", ms, **labels),
                      figure("predicted_ms", "ms", 0.4 * ms + 0.1 * batch, **labels)]  # fmt: skip
    return found


def bent_grid() -> list[Figure]:
    """Steps of 5 ms, 10 µs a sequence up to batch 110 and 40 µs beyond; three repeats."""

    def step_ms(batch: int, scale: float) -> float:
        return scale * (5 + 0.01 * batch + 0.03 * max(0, batch - 110))

    return [
        Figure.from_series(Series("step_ms", "ms", [step_ms(batch, s) for s in (0.99, 1, 1.01)],
                                  {"batch": batch, "context": 128}))
        for batch in (1, 4, 16, 64, 128, 192, 256, 384)
    ]  # fmt: skip


def profile() -> list[Figure]:
    parts = {"matmul": 4.1, "attention": 0.3, "elementwise": 0.25, "sampling": 0.05, "gaps": 0.46,
             "total": 5.16, "unprofiled": 5.1}  # fmt: skip
    return [figure("step_time", "s", ms / 1e3, part=part) for part, ms in parts.items()]


def tuning() -> list[TuningStep]:
    def step(knob, ratio, low, high, verdict):
        found = Comparison(name="goodput.requests_per_s", ratio=ratio, low=low, high=high,
                           confidence=0.95, verdict=verdict)  # fmt: skip
        return TuningStep(knob, found)

    return [
        step("max-num-seqs 256 → 288", 1.11, 1.06, 1.17, "B faster"),
        step("stream-interval 1 → 8", 1.02, 0.98, 1.06, "no difference"),
        step("max-num-batched-tokens → 512", 0.9, 0.86, 0.95, "A faster"),
    ]


def service() -> Service:
    return Service(known_shape("qwen3-8b"), H200, 1024, 256)


def operated() -> list[Operated]:
    rows = ((1, 190, 5.2), (8, 1300, 6.0), (64, 4300, 12), (256, 6300, 33))
    return [Operated(f"并发 {n}", figure("tokens", "tok/s", speed, concurrency=n),
                     figure("tpot", "ms", ms, concurrency=n)) for n, speed, ms in rows]  # fmt: skip
