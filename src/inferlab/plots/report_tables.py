"""Tables of a report, as HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from inferlab.plots.benchmark import condition, groups
from inferlab.records.rooflines import WEIGHTS
from inferlab.records.runs import Run
from inferlab.records.schema import EngineInfo, Figure, Record

OPEN_UP_TO = 30  # longer tables start folded
COLUMNS = {
    "output_tokens_per_s": "输出 tok/s",
    "requests_per_s": "req/s",
    "ttft_ms.p50": "TTFT p50 ms",
    "ttft_ms.p99": "TTFT p99 ms",
    "itl_ms.mean": "ITL 均值 ms",
    "itl_ms.p99": "ITL p99 ms",
    "e2e_ms.p99": "E2E p99 ms",
    "goodput.share": "达到 SLO 的占比",
    "mbu": "MBU",
    "mfu": "MFU",
}


def warnings(record: Record) -> list[str]:
    """What a reader must know before the figures: partial, unsteady, failures, unsaved code."""
    found = [f"记录不完整：{record.partial}"] if record.partial else []
    if record.repeats < 2:
        found.append("只测了一次：没有区间，不能据此比较")
    if record.software.git_dirty:
        found.append("测量时代码有未提交的改动，commit 不能完全重现它")
    for labels, runs in groups(record):
        reasons = [run.steady.reason for run in runs if run.steady.verdict != "steady"]
        if reasons:
            where = condition(labels)
            found.append(f"{where}：{len(reasons)}/{len(runs)} 次不是稳态（{reasons[0]}）")
    return found


def provenance(path: Path, record: Record) -> str:
    """Where the figures come from."""
    software, host = record.software, record.host
    commit = software.git_commit or "未知"
    torch = f"torch {software.torch}" if software.torch else ""
    cuda = f"CUDA {software.cuda}" if software.cuda else ""
    rows = {
        "设备": record.device,
        "驱动": (host.driver_version if host else None) or "",
        "主机": f"{host.cpu.model}，{host.system}" if host else "",
        "引擎": _engine(record.engine) or software.engine or "",
        "引擎 B": _engine(record.engine_b),
        "软件": "，".join(filter(None, [f"Python {software.python}", torch, cuda])),
        "模型": _model(record),
        "commit": commit[:12] + ("（有未提交的改动）" if software.git_dirty else ""),
        "日期": record.created,
        "命令": record.command,
        "重复": f"{record.repeats} 次",
        "种子": "" if record.seed is None else str(record.seed),
        "上限来源": str(record.parameters.get("limits") or ""),
        "文件": path.name,
    }
    body = [(name, f"<code>{escape(text)}</code>" if name == "命令" else escape(text))
            for name, text in rows.items() if text]  # fmt: skip
    lines = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in body)
    return f"<table>{lines}</table>"


def _engine(engine: EngineInfo | None) -> str:
    return f"{engine.name} {engine.version or ''}".strip() if engine else ""


def _model(record: Record) -> str:
    if record.model is None:
        return ""
    weights = WEIGHTS.get(record.model.weights, record.model.weights)
    return f"{record.model.name}，{weights}，{record.model.dtype}"


def conditions(record: Record) -> str:
    """A benchmark at a glance: a row a condition, `mean ± half of the interval`."""
    shown = [name for name in COLUMNS if record.select(name)]
    headers = ["负载", *(COLUMNS[name] for name in shown), "失败", "稳态"]
    rows = []
    for labels, runs in groups(record):
        found = [[f for f in record.select(name) if f.labels == labels] for name in shown]
        cells = [_short(each[0]) if each else "" for each in found]
        rows.append([condition(labels), *cells, _failed(runs), _steady(runs)])
    return _table(headers, rows)


def _failed(runs: Sequence[Run]) -> str:
    kinds: dict[str, int] = {}
    for run in runs:
        for kind, count in run.summary.failures.items():
            kinds[kind] = kinds.get(kind, 0) + count
    total = sum(run.summary.requests for run in runs)
    named = "，".join(f"{kind} {count}" for kind, count in kinds.items())
    return f"{sum(kinds.values())}/{total}" + (f"（{named}）" if named else "")


def _steady(runs: Sequence[Run]) -> str:
    return f"{sum(run.steady.verdict == 'steady' for run in runs)}/{len(runs)}"


def figures(record: Record) -> str:
    """Every figure with its condition, interval and number of repeats."""
    headers = ["数", "条件", "均值", "95 % 区间", "次数", "单位"]
    rows = [
        [each.name, _labels(each.labels), _number(each.mean), _bounds(each), str(len(each.values)),
         "" if each.unit == "1" else each.unit]
        for each in record.figures
    ]  # fmt: skip
    state = " open" if len(rows) <= OPEN_UP_TO else ""
    title = f"<summary>全部 {len(rows)} 个数</summary>"
    return f"<details{state}>{title}{_table(headers, rows)}</details>"


def _labels(labels: dict[str, Any]) -> str:
    return "，".join(f"{key}={value}" for key, value in labels.items())


def _bounds(figure: Figure) -> str:
    if len(figure.values) < 2:
        return "—"
    return f"{_number(figure.low)} – {_number(figure.high)}"


def _short(figure: Figure) -> str:
    half = (figure.high - figure.low) / 2
    return _number(figure.mean) + (f" ± {_half(half)}" if len(figure.values) > 1 else "")


def _half(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in headers)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    kind = ' class="number"' if text[:1].isdigit() or text[:1] in "-—" else ""
    return f"<td{kind}>{escape(text)}</td>"
