"""A benchmark record as `./lab bench` writes it, from samples made by hand: no server needed."""

from inferlab.load.samples import RequestSample, Status
from inferlab.measure.steady import steady_state
from inferlab.measure.summary import summarise
from inferlab.measure.window import Window
from inferlab.records import runs, store
from inferlab.records.runs import Run
from inferlab.records.schema import Comparison, EngineInfo, Figure, Model, Record

CEILINGS = {"ceiling_bytes_per_s": 4.3e12, "ceiling_flops_per_s": 7e14, "devices": 1.0}
FIGURES = {
    "output_tokens_per_s": "tok/s",
    "ttft_ms.p50": "ms",
    "ttft_ms.p99": "ms",
    "itl_ms.mean": "ms",
    "e2e_ms.p99": "ms",
}


def samples(rate_per_s: float, repeat: int, seconds: float = 10.0) -> list[RequestSample]:
    """Requests whose TTFT and ITL grow with the rate; every 20th one fails."""
    found = []
    for index in range(int(rate_per_s * seconds)):
        due = index / rate_per_s
        first = due + 0.05 + 0.002 * rate_per_s + 0.001 * ((7 * index + repeat) % 11)
        itl = 0.006 + 0.0002 * rate_per_s
        times = tuple(first + number * itl for number in range(32))
        failed = index % 20 == 19
        found.append(RequestSample(
            index, due, due, due + 0.001 if failed else times[-1] + 0.001,
            Status.HTTP_ERROR if failed else Status.OK, chunk_s=() if failed else times,
            chunk_tokens=() if failed else (1,) * 32, prompt_tokens=128,
            output_tokens=0 if failed else 32,
        ))  # fmt: skip
    return found


def run(rate_per_s: float, repeat: int) -> Run:
    """One run with limits as against an H200."""
    made, window = samples(rate_per_s, repeat), Window(1.0, 10.0)
    decoding = rate_per_s * 0.3
    limits = {"mbu": 0.4, "mfu": 0.1, "decode_sequences": decoding, "decode_context_tokens": 144.0}
    return Run(
        labels={"rate_per_s": rate_per_s}, repeat=repeat, seed=f"0/{repeat}",
        started_at=1764e6, duration_s=11.0, window_s=(1.0, 10.0),
        summary=runs.RunSummary.of(summarise(made, window)),
        steady=runs.steady_verdict(steady_state(made, window)), limits=limits | CEILINGS,
        itl_quantiles_ms=runs.itl_quantiles(made, window), requests=runs.RequestTable.of(made),
    )  # fmt: skip


def record(rates=(8.0, 40.0, 120.0), repeats: int = 3, **changes) -> Record:
    """A sweep over rates of Qwen3-8B on an H200's host."""
    done = [run(rate, repeat) for repeat in range(repeats) for rate in rates]
    pattern = store.find("chapter03", "ceilings", "h200")
    fields = {
        "kind": "benchmark", "lab": "bench", "experiment": "sweep", "repeats": repeats,
        "engine": EngineInfo(name="vLLM", version="0.32.0"), "runs": done, "seed": 0,
        "model": Model(name="Qwen/Qwen3-8B", weights="random", dtype="bfloat16"),
        "figures": [figure(name, unit, rate, done) for rate in rates
                    for name, unit in FIGURES.items()],
    }  # fmt: skip
    return pattern.model_copy(update=fields | changes)


def figure(name: str, unit: str, rate: float, done: list[Run]) -> Figure:
    """One figure over the repeats at a rate."""
    from inferlab.hardware.timing import Series

    first, _, part = name.partition(".")
    found = [getattr(each.summary, first) for each in done if each.labels["rate_per_s"] == rate]
    values = [getattr(value, part) if part else value for value in found]
    return Figure.from_series(Series(name, unit, values, {"rate_per_s": rate}))


def comparison() -> list[Comparison]:
    """What an A/B says."""
    return [
        Comparison(name="ttft_ms.p50", ratio=0.8, low=0.7, high=0.9, confidence=0.99,
                   verdict="B faster"),
        Comparison(name="itl_ms.p99", ratio=1.01, low=0.9, high=1.1, confidence=0.99,
                   verdict="no difference"),
    ]  # fmt: skip
