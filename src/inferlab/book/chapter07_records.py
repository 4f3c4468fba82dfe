"""Chapter 7's records as its notebook shows them, each a picture or a table: what separation does
to latency and goodput, what the router adds, how faults end. The handover's own are in
`chapter07_handover`."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from IPython.display import Markdown
from matplotlib.figure import Figure as Drawing

from inferlab.arithmetic.separation import best_split, rates
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.book.chapter07 import EFFICIENCY, LAB, predicted_gain
from inferlab.book.shown_records import VERDICTS, ShownRecords
from inferlab.hardware.timing import Series
from inferlab.plots.interference import interference as interference_picture
from inferlab.plots.tables import table
from inferlab.records.goodput_ab import CAPACITY, OpenEnds, open_ends, settled
from inferlab.records.rooflines import describe
from inferlab.records.schema import Comparison, Figure, Record

K = TypeVar("K", bound=Hashable)
# Loads of the experiments: name for the reader, prompt, output, TPOT of the SLO in seconds.
GOODPUT = {
    "goodput_chat": ("对话", 512, 256, 0.015),
    "goodput_long_prompt": ("长 prompt", 8192, 128, 0.025),
    "goodput_long_answer": ("长回答", 256, 768, 0.025),
}
FOUR_GPUS = {
    "chat": ("对话 512/256", 512, 256, 0.015),
    "long_prompt": ("长 prompt 8,192/128", 8192, 128, 0.025),
}
SPLITS = ((1, 3), (2, 2), (3, 1))
FAULTS = {
    "none": "没有故障（对照）",
    "prefill_killed": "P 被杀",
    "decode_killed": "D 被杀",
    "prefill_frozen": "P 卡住",
    "decode_frozen": "D 卡住",
    "router_restarted": "路由重启",
    "router_frozen": "路由卡住，比租约久",
    "prefill_killed_after_handover": "P 交接后被杀",
}
# What the router is asked with before an engine and, in `router_null`, before null servers; and
# what stands behind it.
ENGINE_LOADS = {"router_ttft": "一次一个", "router_overhead": "16 路"}
NULL_LOADS = {
    "one at a time": "一次一个",
    "16 in step": "16 路，每 5.5 ms 一步",
    "192 streams": "192 路，每路每秒 50 token",
    "flat out": "256 路，不限流速",
}
BEHIND = {"router": "一个副本", "pd": "P 和 D"}
_H200, _CPU = ShownRecords(LAB), ShownRecords(LAB, ("intel-xeon", "amd-epyc"))
shown, gains, verdicts = _H200.shown, _H200.gains, _H200.verdicts


def interference() -> Drawing | Markdown:
    """Chats while long prompts arrive: PD against as many replicas, with two sizes of chunks."""
    return _interference({
        "PD": "interference_pd",
        "副本，chunk 2,048": "interference_colocated",
        "副本，chunk 512": "interference_colocated_512",
    })  # fmt: skip


def interference_on_one_gpu() -> Drawing | Markdown:
    """The same where both workers share one GPU, against one replica on it."""
    return _interference({
        "1P1D 挤在一块卡上": "interference_pd_one_gpu",
        "一个副本，chunk 2,048": "interference_colocated_one_gpu",
        "一个副本，chunk 512": "interference_colocated_512_one_gpu",
    })  # fmt: skip


def _interference(names: Mapping[str, str]) -> Drawing | Markdown:
    """The experiments of `names` (label → name) in one picture; where one has no record, how to
    make it."""
    records = {label: _H200.find(name) for label, name in names.items()}
    found = {label: record for label, record in records.items() if record}
    if len(found) < len(names):
        return _H200.missing(names.values())
    sides = {label: record.figures for label, record in found.items()}
    return interference_picture(sides, note=describe(*found.values()))


def router_added() -> Markdown:
    """What the router adds: before an engine on an H200, and before null servers."""
    engine = [
        _router_before_engine(record, load)
        for name, load in ENGINE_LOADS.items()
        if (record := _H200.find(name))
    ]
    null = [
        row
        for each in (_H200, _CPU)
        if (record := each.find("router_null"))
        for row in _router_before_null(record)
    ]
    if not engine or not null:
        return _H200.missing([*ENGINE_LOADS, "router_null"])
    heads = ["引擎", "负载", "路由后面", "TTFT 多 ms（95 %）", "输出吞吐 ÷ 直接问（95 %）",
             "路由的 CPU，ms/token"]  # fmt: skip
    return table(heads, [*engine, *null])


def _router_before_engine(record: Record, load: str) -> tuple[object, ...]:
    """Of the pairs that were measured in turn, as `router_null` takes them."""
    ttft, output = (
        zip(*(record.one(name, side=side).values for side in "AB"), strict=True)
        for name in ("ttft_ms.p50", "output_tokens_per_s")
    )
    added = Series("ttft_added_ms", "ms", [routed - direct for direct, routed in ttft])
    ratio = Series("throughput_ratio", "", [routed / direct for direct, routed in output])
    intervals = _with_intervals(Figure.from_series(added), Figure.from_series(ratio))
    return "vLLM，H200", load, BEHIND["router"], *intervals, "—"


def _router_before_null(record: Record) -> Iterator[tuple[object, ...]]:
    host = f"空服务器，{record.host.cpu.usable_cores} 核" if record.host else "空服务器"
    for added in record.select("ttft_added_ms"):
        ratio, cpu = (
            record.one(name, **added.labels)
            for name in ("throughput_ratio", "router_cpu_ms_per_token")
        )
        load, behind = NULL_LOADS[added.labels["load"]], BEHIND[added.labels["path"]]
        yield host, load, behind, *_with_intervals(added, ratio), cpu.mean


def _with_intervals(added: Figure, ratio: Figure) -> tuple[str, str]:
    return (
        f"{added.mean:.1f}（{added.low:.1f} 到 {added.high:.1f}）",
        f"{ratio.mean:.3f}（{ratio.low:.3f}–{ratio.high:.3f}）",
    )


def goodput(shape: ModelShape, ceilings: Ceilings) -> Markdown:
    """Goodput of PD against replicas, beside the prediction, and whether their ladders were high
    enough to tell."""
    rows = []
    for name, (label, prompt, output, tpot_s) in GOODPUT.items():
        record = _H200.find(name)
        for each in record.comparisons if record else ():
            if record and each.name == CAPACITY:
                found = [record.one(CAPACITY, side=side) for side in "AB"]
                ends = open_ends(record)
                predicted = predicted_gain(shape, ceilings, prompt, output, tpot_s)
                rows.append((f"{label}：{prompt:,} 进 {output:,} 出", len(found[0].values),
                             *(side.mean for side in found), predicted, each.ratio,
                             _interval(each, ends), _verdict(each, ends)))  # fmt: skip
    if not rows:
        return _H200.missing(GOODPUT)
    heads = ["负载", "轮", "两个副本 A，req/s", "1P1D B，req/s", "预测 B ÷ A", "实测 B ÷ A",
             "区间（95 %）", "结论"]  # fmt: skip
    return table(heads, rows)


def _interval(gain: Comparison, ends: OpenEnds) -> str:
    low = "不详" if ends.low else f"{gain.low:.2f}"
    high = "不详" if ends.high else f"{gain.high:.2f}"
    return f"{low}–{high}"


def _verdict(gain: Comparison, ends: OpenEnds) -> str:
    """What the comparison says, where the end of the interval that it hangs on is known."""
    stands = {"A faster": not ends.high, "B faster": not ends.low}
    if stands.get(gain.verdict, ends == OpenEnds()):
        return VERDICTS[gain.verdict]
    return "未定：有一轮没有爬到头"


def measured_gains(tpot_s: float) -> dict[tuple[int, int], float]:
    """(prompt, output) → recorded goodput, PD ÷ replicas, of loads with this TPOT in their SLO and
    where it is settled."""
    return _recorded_gains({
        (prompt, output): name
        for name, (_, prompt, output, limit_s) in GOODPUT.items()
        if limit_s == tpot_s
    })  # fmt: skip


def _recorded_gains(experiments: Mapping[K, str]) -> dict[K, float]:
    """key → goodput of B ÷ A, of those experiments that are recorded and settled."""
    found = {key: _H200.find(name) for key, name in experiments.items()}
    return {
        key: each.ratio
        for key, record in found.items()
        if record and settled(record)
        for each in record.comparisons
        if each.name == CAPACITY
    }


def splits_of_four(shape: ModelShape, ceilings: Ceilings) -> Markdown:
    """Goodput of each way to split four GPUs ÷ that of four replicas; the best one, measured and
    predicted."""
    rows = []
    for load, (label, prompt, output, tpot_s) in FOUR_GPUS.items():
        gained = _recorded_gains({split: _split_name(split, load) for split in SPLITS})
        if not gained:
            continue
        known = rates(shape, ceilings, prompt=prompt, output=output, tpot_s=tpot_s,
                      efficiency=EFFICIENCY)  # fmt: skip
        predicted = best_split(known, sum(SPLITS[0]))
        best = max(gained, key=lambda split: gained[split])
        rows.append((label, *(gained.get(each, "—") for each in SPLITS), _pd(*best),
                     _pd(predicted.prefill, predicted.decode)))  # fmt: skip
    if not rows:
        return _H200.missing(_split_name(split, load) for load in FOUR_GPUS for split in SPLITS)
    heads = [f"{_pd(*each)} ÷ 四个副本" for each in SPLITS]
    return table(["四块 H200", *heads, "实测最好", "预测最好"], rows)


def _split_name(split: tuple[int, int], load: str) -> str:
    return f"split_{split[0]}_{split[1]}_{load}"


def _pd(prefill_gpus: int, decode_gpus: int) -> str:
    return f"{prefill_gpus}P{decode_gpus}D"


def faults() -> Markdown:
    """How requests ended while something died: of the CPU records that this repository has."""
    return _faults(_CPU, (
        "faults", "faults_kv_expired", "faults_router_frozen", "faults_after_handover",
    ))  # fmt: skip


def faults_on_a_gpu() -> Markdown:
    """The same of H200s: four workers on two of them, or on one."""
    return _faults(_H200, (
        "faults", "faults_one_gpu", "faults_one_gpu_killed", "faults_one_gpu_after_handover",
    ))  # fmt: skip


def _faults(shown_by: ShownRecords, experiments: Sequence[str]) -> Markdown:
    records = [(name, record) for name in experiments if (record := shown_by.find(name))]
    if not records:
        return shown_by.missing(experiments)
    rows = []
    for experiment, record in records:
        for answered in record.select("answered"):
            fault = str(answered.labels["fault"])
            long = experiment.endswith("expired") and fault == "decode_frozen"
            label = "D 卡住，比租约久" if long else FAULTS[fault]
            ends = ("answered", "broken_off", "lost", "silent", "wrong")
            counts = [int(sum(record.one(name, fault=fault).values)) for name in ends]
            kv = [record.select(name, fault=fault) for name in ("expired", "failed_reads")]
            seen = "、".join(f"{sum(each[0].values):.0f}" if each else "—" for each in kv)
            slowest = max(record.one("slowest_s", fault=fault).values)
            rows.append((experiment, label, len(answered.values), *counts, seen, slowest))
    heads = [
        "实验",
        "故障",
        "次数",
        "答完",
        "输出中断并报错",
        "首 token 前报错",
        "无声无息",
        "答错",
        "KV 到期、读不到",
        "最慢 s",
    ]
    return table(heads, rows)
