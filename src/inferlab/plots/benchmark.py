"""Pictures of a benchmark record: latency distributions, throughput against latency under the
roofline, one run over time, and the ratios of an A/B."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from inferlab.arithmetic.roofline import decode
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.errors import LabError
from inferlab.plots.style import (
    COLOURS,
    GREEN,
    GREY,
    RED,
    interval_bars,
    new_figure,
    plain_log_ticks,
    source_note,
)
from inferlab.records.rooflines import describe
from inferlab.records.runs import Run
from inferlab.records.schema import Record
from inferlab.repository import root

MOST_LINES = 8
SHOWN = {"search": "搜索", "capacity": "复测"}
Group = tuple[dict[str, Any], list[Run]]


def condition(labels: dict[str, Any]) -> str:
    """A condition for a legend: `A，8 req/s`."""
    parts = [str(labels["side"])] if "side" in labels else []
    parts += [f"{labels['rate_per_s']:.3g} req/s"] if "rate_per_s" in labels else []
    parts += [f"并发 {labels['concurrency']}"] if "concurrency" in labels else []
    parts += [SHOWN.get(labels["phase"], str(labels["phase"]))] if "phase" in labels else []
    return "，".join(parts) or "全部"


def groups(record: Record) -> list[Group]:
    """Runs by condition, in the order measured; whole ones only, where a condition has one."""
    found: dict[str, Group] = {}
    for run in record.runs:
        found.setdefault(repr(sorted(run.labels.items())), (run.labels, []))[1].append(run)
    return [(labels, [r for r in runs if not r.partial] or runs) for labels, runs in found.values()]


def latency_cdfs(record: Record) -> Figure | None:
    """Cumulative distributions of TTFT, ITL and E2E a condition, repeats pooled; None when the
    record holds no single requests (an import)."""
    pooled = [
        (condition(labels), _ttft_e2e(runs), [v for run in runs for v in run.itl_quantiles_ms])
        for labels, runs in groups(record)
    ]
    pooled = [each for each in pooled if each[1][0]][:MOST_LINES]
    if not pooled:
        return None
    figure, panels = new_figure(3, width=10.4, height=3.9)
    for place, name in enumerate(("TTFT（从计划发送时刻起）", "ITL（逐 token）", "E2E")):
        axes: Axes = panels[place]
        for line, (label, (ttft, e2e), itl) in enumerate(pooled):
            _cdf(axes, (ttft, itl, e2e)[place], label, line)
        axes.axhline(0.99, color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="ms")
        plain_log_ticks(axes.xaxis)
        axes.set_title(name, loc="left", fontsize=10)
    panels[0].set_ylabel("请求占比（虚线：99 %）")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=min(len(pooled), 6), fontsize=8.5)  # fmt: skip
    source_note(figure, describe(record))
    return figure


def _cdf(axes: Axes, values: Sequence[float], label: str, line: int) -> None:
    if values:
        share = np.arange(1, len(values) + 1) / len(values)
        style = "-" if line < len(COLOURS) else "--"
        axes.step(np.sort(values), share, style, where="post", linewidth=1.4, label=label,
                  color=COLOURS[line % len(COLOURS)])  # fmt: skip


def _ttft_e2e(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Milliseconds of the whole answers scheduled inside each run's window."""
    ttft: list[float] = []
    e2e: list[float] = []
    for run in runs:
        table, (start, end) = run.requests, run.window_s
        if table is None:
            continue
        columns = zip(
            table.scheduled_s, table.first_token_s, table.finished_s, table.status, strict=True
        )
        for due, first, finished, status in columns:
            if status == "ok" and first is not None and start <= due < end:
                ttft.append((first - due) * 1e3)
                e2e.append((finished - due) * 1e3)
    return ttft, e2e


def pareto(records: Sequence[Record]) -> Figure | None:
    """Output throughput against ITL and TTFT, a point a condition with its intervals, one line a
    record; where the model's shape and the device's ceilings are known, decode's roofline too.

    Hollow points were overloaded, drifting or too short. None when nothing was measured.
    """
    drawn = [record for record in records if record.select("output_tokens_per_s")]
    if not drawn:
        return None
    figure, (left, right) = new_figure(2, width=10.4, height=4.4)
    for place, record in enumerate(drawn):
        colour, name = COLOURS[place % len(COLOURS)], _name(record) if len(drawn) > 1 else "实测"
        _points(left, record, "itl_ms.mean", colour, name)
        _points(right, record, "ttft_ms.p50", colour, f"{name} p50")
        _points(right, record, "ttft_ms.p99", colour, f"{name} p99", line="--")
        _roof(left, record, colour)
    _finish(left, "ITL 均值（ms）", "吞吐与 ITL")
    _finish(right, "TTFT（ms）", "吞吐与 TTFT")
    source_note(figure, describe(*drawn))
    return figure


def _name(record: Record) -> str:
    return f"{record.device} {record.experiment}"


def _points(
    axes: Axes, record: Record, name: str, colour: str, label: str, line: str = "-"
) -> None:
    pairs = [
        (each, found[0])
        for each in record.select("output_tokens_per_s")
        if each.labels.get("phase") != "search" and (found := record.select(name, **each.labels))
    ]
    pairs.sort(key=lambda pair: pair[0].mean)
    if not pairs:
        return
    x, y = [pair[0].mean for pair in pairs], [pair[1].mean for pair in pairs]
    bars = [interval_bars([pair[side] for pair in pairs]) for side in (1, 0)]
    axes.errorbar(x, y, *bars, fmt=line, color=colour, capsize=2, linewidth=1, label=label)
    for speed, latency in pairs:
        hollow = "white" if _unsteady(record, speed.labels) else colour
        axes.plot(speed.mean, latency.mean, "o", color=colour, markerfacecolor=hollow, markersize=5)
        if line == "-":
            axes.annotate(condition(speed.labels), (speed.mean, latency.mean), (5, 5),
                          textcoords="offset points", fontsize=7.5, color=GREY)  # fmt: skip


def _unsteady(record: Record, labels: dict[str, Any]) -> bool:
    return any(run.steady.verdict != "steady" for run in record.runs if run.labels == labels)


def decode_roof(record: Record, most: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
    """Tokens per second and ITL in milliseconds that decoding can reach at best, over batch.

    From the ceilings and the mean context that the runs were held against; None where the record
    has none, or the model's shape is unknown.

    Args:
        most: largest batch; by default four times the largest that was seen.
    """
    shape, seen = shape_of(record), [run.limits for run in record.runs if "mbu" in run.limits]
    if shape is None or not seen:
        return None
    first, context = seen[0], float(np.mean([each["decode_context_tokens"] for each in seen]))
    devices = first.get("devices", 1.0)
    ceilings = Ceilings(
        first["ceiling_flops_per_s"] * devices, first["ceiling_bytes_per_s"] * devices
    )
    most = most or 4 * max(1, round(max(each["decode_sequences"] for each in seen)))
    batches = np.unique(np.geomspace(1, most, 60).astype(int))
    floors = [decode(shape, int(b), round(context)).total.against(ceilings).floor_s
              for b in batches]  # fmt: skip
    return batches / np.array(floors), 1e3 * np.array(floors)


def _roof(axes: Axes, record: Record, colour: str) -> None:
    roof = decode_roof(record)
    if roof is not None:
        axes.plot(*roof, color="black", linewidth=1.4, label="decode roofline（灰色：达不到）")
        axes.fill_between(*roof, 0, color=GREY, alpha=0.12, linewidth=0)


def shape_of(record: Record) -> ModelShape | None:
    """The measured model's shape from `models/`, by its name, in the dtype that its engine was
    given; None when it is not there."""
    full = record.model.name if record.model else ""
    name = full.partition("（")[0].rpartition("/")[2]
    models = root() / "models"
    for path in (models / "configs" / f"{name.lower()}.json", models / name / "config.json"):
        if name and path.is_file():
            try:
                given = record.engine.config if record.engine else {}
                return ModelShape.from_config(path).computed_in(str(given.get("dtype", "auto")))
            except LabError:
                return None
    return None


def _finish(axes: Axes, label: str, title: str) -> None:
    axes.set(xlabel="输出吞吐（tok/s，只计生成的 token）", ylabel=label)
    axes.margins(0.15)
    _scale(axes, axes.xaxis, axes.get_xlim(), axes.set_xscale, axes.set_xlim)
    _scale(axes, axes.yaxis, axes.get_ylim(), axes.set_yscale, axes.set_ylim)
    if any(line.get_markerfacecolor() == "white" for line in axes.get_lines()):
        axes.plot([], [], "o", color=GREY, markerfacecolor="white", label="空心：不是稳态")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(fontsize=8)


def _scale(axes: Axes, axis: Axis, limits: tuple[float, float], scale: Any, limit: Any) -> None:
    """From 0 on a linear axis, or logarithmic where the data span more than a factor of ten."""
    along_x = axis is axes.xaxis
    lines = [np.asarray(each.get_data()[0 if along_x else 1], float) for each in axes.get_lines()]
    seen = np.concatenate([*lines, [limits[1]]])
    if seen.min() > 0 and seen.max() / seen.min() > 10:
        scale("log")
        plain_log_ticks(axis)
    else:
        limit(0, max(limits[1], 1.15 * max((line.max() for line in lines if line.size), default=0)))


def ab_ratios(record: Record) -> Figure | None:
    """B ÷ A of each figure with its interval; None for a record that compares nothing."""
    if not record.comparisons:
        return None
    figure, axes = new_figure(height=1.6 + 0.38 * len(record.comparisons))
    for place, each in enumerate(record.comparisons):
        colour = {"A faster": RED, "B faster": GREEN}.get(each.verdict, GREY)
        bars = [[each.ratio - each.low], [each.high - each.ratio]]
        axes.errorbar(each.ratio, place, xerr=bars, fmt="o", color=colour, capsize=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(record.comparisons)), [each.name for each in record.comparisons])
    axes.set_ylim(len(record.comparisons) - 0.5, -0.5)
    axes.set_xlabel("B ÷ A（绿：B 更快，红：A 更快，灰：看不出差别）")
    axes.set_title("A/B：每个数的比值与区间", loc="left")
    source_note(figure, describe(record))
    return figure
