"""One run of a benchmark over time: every request as a bar, and what arrived a second."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.plots.benchmark import condition, groups
from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, source_note
from inferlab.records.rooflines import describe
from inferlab.records.runs import RequestTable, Run
from inferlab.records.schema import Record

MOST_BARS = 400
BINS = 60


def timeline(record: Record) -> Figure | None:
    """Requests, tokens per second and requests in flight of the run under the heaviest load.

    The record keeps no chunk times, so a request's tokens are spread evenly from its first token
    to its end. None when no run holds its requests.
    """
    run = _heaviest(record)
    if run is None or run.requests is None:
        return None
    figure, (top, bottom) = new_figure(1, 2, width=9.6, height=6.0)
    _bars(top, run.requests)
    _rates(bottom, run.requests)
    bottom.set_xlabel("运行开始后的秒数")
    for axes in (top, bottom):
        axes.set_xlim(0, run.duration_s)
        axes.axvspan(*run.window_s, color=GREEN, alpha=0.06, linewidth=0)
    state = "" if run.steady.verdict == "steady" else f"；{run.steady.reason}"
    title = f"{condition(run.labels)}，第 {run.repeat + 1} 次（浅绿：计入统计的窗口{state}）"
    top.set_title(title, loc="left", fontsize=10)
    source_note(figure, describe(record))
    return figure


def _heaviest(record: Record) -> Run | None:
    runs = [run for _, group in groups(record) for run in group[:1] if run.requests]
    runs = [run for run in runs if run.requests and run.requests.scheduled_s]
    return max(runs, key=_offered, default=None)


def _offered(run: Run) -> float:
    return float(run.labels.get("rate_per_s") or run.labels.get("concurrency") or 0)


def _bars(axes: Axes, table: RequestTable) -> None:
    step = -(-len(table.status) // MOST_BARS)
    rows = list(zip(table.scheduled_s, table.sent_s, table.first_token_s, table.finished_s,
                    table.status, strict=True))  # fmt: skip
    rows = sorted(rows)[::step]
    kinds: dict[str, list[tuple[int, float, float]]] = {"wait": [], "ttft": [], "decode": [],
                                                        "failed": []}  # fmt: skip
    for place, (due, sent, first, end, status) in enumerate(rows):
        kinds["wait"].append((place, due, sent))
        if status != "ok" or first is None:
            kinds["failed"].append((place, sent, end))
            continue
        kinds["ttft"].append((place, sent, first))
        kinds["decode"].append((place, first, end))
    labels = {"wait": ("等在客户端", GREY), "ttft": ("到首 token", ORANGE),
              "decode": ("生成", BLUE), "failed": ("失败或取消", RED)}  # fmt: skip
    for kind, (label, colour) in labels.items():
        if kinds[kind]:
            y, start, end = zip(*kinds[kind], strict=True)
            axes.hlines(y, start, end, color=colour, linewidth=1.2, label=label)
            if kind == "failed":  # a refused request ends at once: no bar would show
                axes.plot(end, y, "x", color=colour, markersize=4)
    axes.set_ylabel("请求" if step == 1 else f"请求（每 {step} 个画 1 个）")
    axes.invert_yaxis()
    axes.legend(fontsize=8, ncols=4, loc="lower left")


def _rates(axes: Axes, table: RequestTable) -> None:
    end = max(table.finished_s)
    edges = np.linspace(0, end, BINS + 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1]
    axes.fill_between(middle, _tokens_per_bin(table, edges) / width, step="mid", color=BLUE,
                      alpha=0.35, linewidth=0, label="输出 tok/s（左）")  # fmt: skip
    axes.set_ylabel("tok/s（请求内均摊）")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    right = axes.twinx()
    right.plot(middle, _in_flight(table, edges) / width, color=ORANGE, label="在途请求（右）")
    right.set_ylim(0, 1.25 * right.get_ylim()[1])
    right.grid(visible=False)
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, fontsize=8, loc="upper left")


def _tokens_per_bin(table: RequestTable, edges: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(edges) - 1)
    columns = zip(table.first_token_s, table.finished_s, table.output_tokens, strict=True)
    for first, end, tokens in columns:
        if first is not None and tokens:
            inside = _overlap(edges, first, max(end, first + 1e-6))
            counts += tokens * inside / max(end - first, 1e-6)
    return counts


def _in_flight(table: RequestTable, edges: np.ndarray) -> np.ndarray:
    spans: Sequence[tuple[float, float]] = list(
        zip(table.scheduled_s, table.finished_s, strict=True)
    )
    return np.sum([_overlap(edges, start, end) for start, end in spans], axis=0)


def _overlap(edges: np.ndarray, start: float, end: float) -> np.ndarray:
    """Seconds of [start, end] inside each bin."""
    return np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
