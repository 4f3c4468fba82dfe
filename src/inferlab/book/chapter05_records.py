"""Chapter 5's H200 records as its notebook shows them: each a picture or a table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from IPython.display import Markdown
from matplotlib.figure import Figure as Drawing

from inferlab.arithmetic.roofline import decode, linear_ridge_tokens
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter03 import known_shape
from inferlab.book.shown_records import ShownRecords
from inferlab.measure.statistics import apart_by_chance
from inferlab.plots.chunked import chunk_tradeoff
from inferlab.plots.decode_grid import decode_grid
from inferlab.plots.decode_knee import decode_knee
from inferlab.plots.pareto import Operated, Service, pareto_with_ceilings
from inferlab.plots.roofline import share_of_limit
from inferlab.plots.slots import slot_timelines
from inferlab.plots.step_profile import step_attribution
from inferlab.plots.tables import table
from inferlab.plots.tuning import TuningStep, tuning_steps
from inferlab.records import store
from inferlab.records.figures import conditions
from inferlab.records.goodput_ab import CAPACITY, settled
from inferlab.records.rooflines import describe, measured_ceilings
from inferlab.records.schema import Comparison, Figure, Record

LAB = "chapter05"
DEVICE = "h200"
CHUNKS = (512, 2048, 8192)
PROFILES = {"step_profile": "默认", "step_profile_latency": "latency.yaml"}
KNOBS = {
    "knob_compile": "单流：按 1 token 编译",
    "knob_pdl": "单流：再开 PDL",
    "knob_qk_rope": "单流：QK norm 与 rope 融合",
    "knob_splits": "单流：attention 不分段",
    "knob_splits_latency": "单流：latency 上再不分段",
    "knob_search": "单流：Inductor 多找几步",
    "knob_seqs": "多流：max-num-seqs 288",
    "knob_stream": "多流：stream-interval 8",
    "knob_tokens": "多流：每步 16,384 token",
    "knob_prefix": "多流：关掉 prefix cache",
    "knob_graphs": "多流：CUDA graph 到 2,048",
}
# Of one stream, by engine/*.yaml as they are now: knob_pdl had an older latency.yaml.
STARTED = ("single_stream", "single_stream_ab", "knob_compile", "knob_splits", "knob_qk_rope",
           "compile_starts", "knob_splits_latency", "knob_search")  # fmt: skip
TUNED_AT_START = {"single_stream_ab", "knob_compile", "knob_pdl", "knob_splits_latency",
                  "knob_search"}  # fmt: skip
WHOLE = {
    "single_stream_ab": "单流：latency.yaml 全部",
    "goodput_ab": "SLO 内：throughput.yaml 全部",
    "goodput_fp8_ab": "SLO 内：throughput-fp8.yaml",
}

_H200 = ShownRecords(LAB, (DEVICE,))
shown, gains, side_by_side = _H200.shown, _H200.gains, _H200.side_by_side
verdicts = _H200.verdicts


def capacity(record: Record) -> Markdown:
    """Predicted against reported KV cache."""
    names = {
        "kv_blocks": "KV block",
        "kv_tokens": "KV cache（token）",
        "max_concurrency": "最大并发（倍）",
    }
    rows = []
    for name, label in names.items():
        found = {f.labels["source"]: f.mean for f in record.select(name)}
        told, counted, before = (
            found.get(k) for k in ("reported", "from_available", "before_start")
        )
        if told and counted and before:
            rows.append((label, told, counted, f"{counted / told - 1:+.2%}", before,
                         f"{before / told - 1:+.2%}"))  # fmt: skip
    return table(["H200，Qwen3-8B", "引擎报告", "按可用显存算", "误差", "启动前算", "误差"], rows)


def batching(record: Record) -> Drawing:
    """Slots of the first repeat, static and continuous."""
    notes = record.parameters
    return slot_timelines(notes["timeline"], notes["batch"], note=describe(record))


def chunks() -> Drawing | Markdown:
    """Chats' longest gaps against long prompts' TTFT over the chunk sizes recorded."""
    records = {size: _H200.find(f"chunked_{size}") for size in CHUNKS}
    found = {size: record for size, record in records.items() if record}
    if len(found) < 2:
        return _H200.missing(f"chunked_{size}" for size in CHUNKS)
    points = {size: chunk_point(record.figures) for size, record in found.items()}
    return chunk_tradeoff(points, note=describe(*found.values()))


def chunk_point(figures: Iterable[Figure]) -> tuple[Figure, Figure]:
    """(TTFT p50 of the long prompts, p90 of chats' longest ITL) of `measure.chunked_prefill`."""
    by = {(f.name, f.labels["request"], f.labels["part"]): f for f in figures
          if {"request", "part"} <= f.labels.keys()}  # fmt: skip
    return by["ttft_ms", "long", "p50"], by["longest_itl_ms", "chat", "p90"]


def grid(record: Record) -> Drawing:
    """Decode steps against the roofline."""
    return decode_grid(record.figures, note=describe(record))


def attribution() -> Drawing | Markdown:
    """A decode step's parts, by default and tuned, against the time of reading what it must at the
    measured copy rate."""
    found = {name: record for experiment, name in PROFILES.items()
             if (record := _H200.find(experiment))}  # fmt: skip
    if not found:
        return _H200.missing(PROFILES)
    floors = {}
    for name, record in found.items():
        condition = record.select("step_time", part="total")[0].labels
        floors[name] = 1e3 * _floor_s(condition["batch"], condition["context"])
    figures = {name: record.figures for name, record in found.items()}
    return step_attribution(figures, floors, note=describe(*found.values()))


def stream_shares(record: Record) -> Markdown:
    """One stream's time per token on both sides of an A/B, against reading weights and KV once."""
    floor_ms = _stream_floor_ms(record)
    rows = []
    for side in "AB":
        tpot = record.one("tpot_ms.mean", side=side)
        name = _engine_of(record, side)
        low, high = floor_ms / tpot.high, floor_ms / tpot.low
        rows.append((name, tpot.mean, floor_ms, f"{floor_ms / tpot.mean:.1%}",
                     f"{low:.1%}–{high:.1%}"))  # fmt: skip
    return table(["H200，单流", "TPOT ms", "roofline 下限 ms", "占 roofline", "95 % 区间"], rows)


def _stream_floor_ms(record: Record) -> float:
    """Time of reading weights and KV once, in the middle of an answer of the record's load."""
    given = record.parameters.get("description", {}).get("load", {})
    context = int(given.get("prompt", 128)) + int(given.get("output", 256)) // 2
    return 1e3 * _floor_s(1, context)


def starts() -> Markdown:
    """One stream's time per token at each recorded start, by configuration.

    Kernels are chosen at the start: repeats on one start do not show what another would have got.
    """
    found = [record for name in STARTED if (record := _H200.find(name))]
    if not found:
        return _H200.missing(STARTED)
    by_engine: dict[str, dict[Any, float]] = defaultdict(dict)
    for record in found:
        for name, start, tpot in _starts_in(record):
            by_engine[name].setdefault(start, tpot)
    floor_ms = _stream_floor_ms(found[0])
    rows = []
    for name, seen in by_engine.items():
        each = sorted(seen.values())
        shares = "–".join(f"{floor_ms / tpot:.1%}" for tpot in dict.fromkeys((each[-1], each[0])))
        rows.append((name, len(each), "、".join(f"{tpot:.2f}" for tpot in each), shares))
    return table(["H200，单流", "启动次数", "每次的 TPOT（ms）", "占 roofline"], rows)


def _starts_in(record: Record) -> Iterator[tuple[str, Any, float]]:
    """Configuration, what tells its start from others, and mean TPOT in ms, of each start in a
    record. What one start reported of itself is the same in every record that it served."""
    startup = record.parameters["startup"]
    for figure in record.select("tpot_ms.mean"):
        side = figure.labels.get("side")
        name = _engine_of(record, side) if side else next(iter(startup))
        if "starts" in record.parameters:
            for number, tpot in enumerate(figure.values):
                yield name, (record.experiment, number), tpot
        else:
            yield name, tuple(sorted(startup[name].items())), figure.mean


def grid_shares(record: Record) -> Drawing:
    """What share of each ceiling a decode step reaches over batch: where they cross, decode leaves
    the bandwidth roof."""
    ceilings, shape = _ceilings(), known_shape("qwen3-8b")
    groups: dict[str, list[tuple[float, float]]] = {}
    contexts = sorted({figure.labels["context"] for figure in record.select("step_ms")})
    for context in contexts[:: max(1, len(contexts) - 1)]:
        for step in record.select("step_ms", context=context):
            batch, seconds = step.labels["batch"], step.mean / 1e3
            point = decode(shape, batch, context).total.against(ceilings)
            for name, limit in (("带宽", point.memory_s), ("算力", point.compute_s)):
                groups.setdefault(f"{name}，上下文 {context:,}", []).append(
                    (batch, limit / seconds)
                )
    return share_of_limit(groups, x_label="batch", title="一步 decode 用到了两个上限的多少",
                          note=describe(record))  # fmt: skip


def knee(record: Record) -> Drawing:
    """Where decode leaves the bandwidth roof, against the roofline's batch."""
    predicted = linear_ridge_tokens(known_shape("qwen3-8b"), _ceilings())
    return decode_knee(record.figures, predicted, note=describe(record))


def _ceilings() -> Ceilings:
    return measured_ceilings(store.find("chapter03", "ceilings", DEVICE))


def _floor_s(batch: int, context: int) -> float:
    return decode(known_shape("qwen3-8b"), batch, context).total.against(_ceilings()).floor_s


def saturation(record: Record, slo_ms: float = 50) -> Drawing:
    """Throughput against TPOT over concurrency, with both ceilings."""
    given = record.parameters.get("description", {}).get("load", {})
    service = Service(known_shape("qwen3-8b"), _ceilings(), given.get("prompt", 1024),
                      given.get("output", 256))  # fmt: skip
    return pareto_with_ceilings(operated(record), service, slo_ms=slo_ms, note=describe(record))


def operated(record: Record) -> list[Operated]:
    """The points of a benchmark over concurrency. Its TPOT is the median: the mean counts requests
    that ended in the drain, where fewer share the engine."""
    return [
        Operated(
            f"并发 {speed.labels['concurrency']}", speed, record.one("tpot_ms.p50", **speed.labels)
        )
        for speed in record.select("output_tokens_per_s")
    ]


def utilisation(record: Record) -> Markdown:
    """MBU and MFU over concurrency."""
    rows: list[tuple[Any, ...]] = []
    for speed in record.select("output_tokens_per_s"):
        shares = [record.select(name, **speed.labels) for name in ("mbu", "mfu")]
        mbu, mfu = (f"{found[0].mean:.0%}" if found else "—" for found in shares)
        tpot = record.one("tpot_ms.p50", **speed.labels).mean
        rows.append((speed.labels["concurrency"], speed.mean, tpot, mbu, mfu))
    return table(["并发", "输出 tok/s", "TPOT p50 ms", "MBU（decode）", "MFU（含 prefill）"], rows)


def ladders(record: Record) -> Markdown:
    """Share of requests within the SLO of both sides over the rate, and how many runs were not
    steady: requests in flight still grew, or an answer took more than a third of the window."""
    rates = sorted({run.labels["rate_per_s"] for run in record.runs})

    def cells(side: str, rate: float) -> tuple[Any, Any]:
        labels = {"side": side, "rate_per_s": rate}
        runs = [run for run in record.runs if run.labels == labels and not run.partial]
        shares = [run.goodput.share for run in runs if run.goodput]
        if not shares:  # not climbed so far, or no run of it is whole
            return "—", "—"
        unsteady = sum(run.steady.verdict != "steady" for run in runs)
        return "、".join(f"{share:.0%}" for share in shares), f"{unsteady} / {len(runs)}"

    names = [_engine_of(record, side) for side in "AB"]
    heads = [f"{name}{part}" for name in names for part in (" 达标（各轮）", "：未到稳态")]
    return table(["到达率（req/s）", *heads],
                 [(rate, *cells("A", rate), *cells("B", rate)) for rate in rates])  # fmt: skip


def power(record: Record) -> Markdown:
    """Power, SM clock and energy per output token of both sides over the rate, means of runs."""
    rows: list[tuple[Any, ...]] = []
    for labels, runs in sorted(conditions(record.runs), key=lambda each: each[0]["rate_per_s"]):
        if seen := [run.telemetry for run in runs if run.telemetry]:
            watts = record.one("power_w", **labels).mean
            joules = record.one("energy_j_per_output_token", **labels).mean
            clock = fmean(each["sm_clock_mhz"] for each in seen)
            name = _engine_of(record, labels["side"])
            rows.append((labels["rate_per_s"], name, watts, clock, joules))
    return table(["到达率（req/s）", "配置", "功率 W", "SM 时钟 MHz", "J/输出 token"], rows)


def _engine_of(record: Record, side: str) -> str:
    """The configuration on one side of an A/B; the side where the record does not name it."""
    return record.parameters.get(f"engine_{side.lower()}", side)


def tuning(names: Mapping[str, str] = KNOBS, title: str = "") -> Drawing | Markdown:
    """The recorded knobs: the ratio of goodput, or of output tokens per second; beside it, where
    kernels are chosen at the start, how far two starts lie apart."""
    found = {name: (record, comparison) for name in names
             if (record := _H200.find(name)) and (comparison := headline(record))}  # fmt: skip
    if not found:
        return _H200.missing(names)
    anew = _H200.find("compile_starts")
    apart = apart_by_chance(anew.select("output_tokens_per_s")[0].values) if anew else 0.0
    steps = [TuningStep(names[name], comparison, apart if name in TUNED_AT_START else 0.0)
             for name, (_, comparison) in found.items()]  # fmt: skip
    note = describe(*(record for record, _ in found.values()))
    return tuning_steps(steps, metric="输出 tok/s 或 goodput", title=title, note=note)


def headline(record: Record) -> Comparison | None:
    """The comparison that a tuning is judged by; None where a goodput is a bound only."""
    by = {each.name: each for each in record.comparisons}
    if goodput := by.get(CAPACITY):
        return goodput if settled(record) else None
    return by.get("output_tokens_per_s")
