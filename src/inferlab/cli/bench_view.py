"""What `bench` and `ab` show: progress while they run, and the summary in Chinese."""

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from inferlab.load.samples import RequestSample
from inferlab.records.benchmark import Outcome, holds_slo
from inferlab.records.figures import conditions
from inferlab.records.one_run import Watch
from inferlab.records.runs import Run
from inferlab.records.schema import Comparison, Figure, Record

REDRAW_S = 0.5
NAMES = {"ttft_ms": "TTFT", "itl_ms": "ITL", "tpot_ms": "TPOT", "e2e_ms": "E2E"}
VERDICTS = {"A faster": "A 更快", "B faster": "B 更快", "no difference": "无差异"}


def wide_console() -> Console:
    """The terminal; a pipe or file gets lines wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=110, highlight=False)


class LiveWatch(Watch):
    """A bar with the last seconds' TTFT and throughput; a line a run without a terminal.

    It redraws twice a second at most: drawing takes time from the client that is measuring.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        text = TextColumn("{task.description}")
        live = TextColumn("{task.fields[live]}")
        self._progress = Progress(text, BarColumn(20), TimeElapsedColumn(), live,
                                  console=console, auto_refresh=False, transient=True)  # fmt: skip
        self._task: TaskID | None = None
        self._recent: list[RequestSample] = []
        self._began = self._drawn = 0.0
        self._failed = self._done = 0
        self._by_time = False

    def __enter__(self) -> "LiveWatch":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def started(self, title: str, requests: int, duration_s: float) -> None:
        """A run begins."""
        self._recent, self._failed, self._done = [], 0, 0
        self._began = time.monotonic()
        self._by_time = not requests
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(title, total=requests or duration_s or None, live="")
        if not self._console.is_terminal:
            self._console.print(f"{title} …", markup=False)

    def sample(self, sample: RequestSample) -> None:
        """A request ended."""
        self._recent.append(sample)
        self._done += 1
        self._failed += not sample.ok
        now = time.monotonic()
        if self._console.is_terminal and now - self._drawn > REDRAW_S:
            self._drawn = now
            self._draw(now)

    def ended(self, run: Run) -> None:
        """A run ended."""
        if self._console.is_terminal:
            return
        summary = run.summary
        ttft = f"TTFT p50 {summary.ttft_ms.p50:.1f} ms，" if summary.ttft_ms else ""
        failed = sum(summary.failures.values())
        self._console.print(
            f"  {ttft}输出 {summary.output_tokens_per_s:.1f} tok/s，"
            f"完成 {summary.ok}，失败 {failed}，{run.duration_s:.1f} s", markup=False,
        )  # fmt: skip

    def _draw(self, now: float) -> None:
        last = self._recent[-1].finished_s
        recent = [s for s in self._recent if s.ok and s.finished_s > last - 5]
        ttfts = sorted(s.ttft_ms for s in recent if s.ttft_ms is not None)
        rate = sum(s.output_tokens for s in recent) / min(5.0, max(last, 0.1))
        ttft = f"TTFT p50 {ttfts[len(ttfts) // 2]:.0f} ms  " if ttfts else ""
        live = f"{ttft}{rate:.0f} tok/s  完成 {self._done - self._failed} 失败 {self._failed}"
        if self._task is not None:
            done = now - self._began if self._by_time else self._done
            self._progress.update(self._task, completed=done, live=live)
            self._progress.refresh()


def show_record(console: Console, record: Record) -> None:
    """The summary of a benchmark: a table and notes for each condition; the sweep at the end."""
    groups = [(labels, runs) for labels, runs in conditions(record.runs)
              if labels.get("phase") != "search"]  # fmt: skip
    for labels, runs in groups:
        figures = {f.name: f for f in record.figures if f.labels == labels}
        unit = "± 为均值的 95 % 区间，单位 ms"
        title = f"{title_of(labels)}（{len(runs)} 次；{unit}）"
        console.print(title, markup=False, soft_wrap=True)
        console.print(_latency_table(figures))
        for line in _notes(figures, runs, record):
            console.print(line, markup=False, soft_wrap=True)
    if len(groups) > 1 and record.kind == "benchmark":
        console.print(_sweep_table(record, [labels for labels, _ in groups]))


def show_comparisons(console: Console, found: Sequence[Comparison]) -> None:
    """Ratios B ÷ A with their intervals and verdicts."""
    percent = 100 * (1 - (1 - found[0].confidence) * len(found)) if found else 95
    console.print(f"B ÷ A（{len(found)} 个指标同时成立的 {percent:.0f} % 区间）", soft_wrap=True)
    table = Table("指标", "B ÷ A", "区间", "结论")
    for each in found:
        span = f"{each.low:.3f} – {each.high:.3f}"
        table.add_row(each.name, f"{each.ratio:.3f}", span, VERDICTS[each.verdict])
    console.print(table)


def capacity_lines(outcome: Outcome, share: float) -> list[str]:
    """The rate found, and whether its repeats bear it out."""
    found = outcome.capacity
    if found is None:
        return []
    again = [run for run in outcome.runs if run.labels.get("phase") == "capacity"]
    held = [run for run in again if holds_slo(run, share) and run.steady.verdict == "steady"]
    rate = _round(found.rate_per_s, 3)
    lines = [f"满足 SLO（{share:.0%} 的请求达到）的最高到达率：{rate} req/s，"
             f"试了 {len(found.tried)} 个；复测 {len(held)}/{len(again)} 次确认"]  # fmt: skip
    doubtful = [run for run in again if run not in held]
    if doubtful:
        why = doubtful[0].steady.reason or "达到 SLO 的请求不够多"
        lines.append(f"没有全部确认：{why}。加长 --duration 再搜索，这个数才可信")
    return lines


def title_of(labels: dict[str, object]) -> str:
    """A condition in words."""
    words = {"rate_per_s": "到达率 {:g} req/s", "concurrency": "并发 {}", "side": "{}",
             "trace": "按 trace 的时刻"}  # fmt: skip
    parts = [words[key].format(value) for key, value in labels.items() if key in words]
    return "，".join(parts) or "，".join(f"{key}={value}" for key, value in labels.items())


def number(figure: Figure | None, digits: int = 3) -> str:
    """`mean ± half-width`; the mean alone when there was one repeat."""
    if figure is None:
        return "—"
    shown = _round(figure.mean, digits)
    half = (figure.high - figure.low) / 2
    return shown if len(figure.values) < 2 else f"{shown} ± {_round(half, 2)}"


def _round(value: float, digits: int) -> str:
    if value and abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _latency_table(figures: dict[str, Figure]) -> Table:
    table = Table("", "p50", "p90", "p95", "p99")
    for name, shown in NAMES.items():
        cells = [number(figures.get(f"{name}.{part}")) for part in ("p50", "p90", "p95", "p99")]
        table.add_row(shown, *cells)
    return table


def _notes(figures: dict[str, Figure], runs: Sequence[Run], record: Record) -> list[str]:
    def of(name: str) -> str:
        return number(figures.get(name))

    lines = [
        f"吞吐：输出 {of('output_tokens_per_s')} tok/s（只计生成的 token）；"
        f"总计 {of('total_tokens_per_s')} tok/s（含 prompt 和缓存命中）；"
        f"{of('requests_per_s')} req/s"
    ]
    if share := figures.get("goodput.share"):
        lines.append(f"goodput：{of('goodput.requests_per_s')} req/s，"
                     f"{share.mean:.1%} 的请求达到 SLO")  # fmt: skip
    lines += [_failures(runs), f"发送晚了：p99 {of('send_delay_ms.p99')} ms，"
              f"最大 {of('send_delay_ms.max')} ms（已计入延迟）"]  # fmt: skip
    lines += _steadiness(runs)
    if "mbu" in figures:
        mbu, mfu = figures["mbu"].mean, figures["mfu"].mean
        source = record.parameters.get("limits")
        lines.append(f"相对本机实测上限：MBU {mbu:.1%}，MFU {mfu:.1%}（{source}）")
        lines += _cache_caveat(runs, record)
    elif record.parameters.get("limits"):
        lines.append(f"MBU/MFU：没有；{record.parameters['limits']}")
    if "power_w" in figures:
        lines.append(f"GPU：{of('power_w')} W，{of('energy_j_per_output_token')} J/输出 token")
    if any(not run.summary.token_counts_exact for run in runs):
        lines.append("注意：服务端没有逐块给出 usage，ITL 按块均摊")
    return [*lines, ""]


def _cache_caveat(runs: Sequence[Run], record: Record) -> list[str]:
    kind = record.parameters.get("workload", {}).get("kind")
    if kind in (None, "random") or any(run.summary.cached_tokens for run in runs):
        return []
    return ["注意：服务端没有报告 cached_tokens（vLLM 要加 --enable-prompt-tokens-details），"
            "若有缓存命中，MFU 偏高"]  # fmt: skip


def _failures(runs: Sequence[Run]) -> str:
    kinds = Counter[str]()
    for run in runs:
        kinds.update(run.summary.failures)
    total = sum(run.summary.requests for run in runs)
    parts = "、".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    stopped = sum(run.summary.cancelled for run in runs)
    cancelled = f"；另有 {stopped} 个被中断" if stopped else ""
    return f"失败：{parts or '无'}（{sum(kinds.values())}/{total} 个请求，不计入延迟）{cancelled}"


def _steadiness(runs: Sequence[Run]) -> list[str]:
    bad = [run for run in runs if run.steady.verdict != "steady"]
    if not bad:
        return [f"稳态：{len(runs)} 次都稳定"]
    return [f"稳态：{len(bad)}/{len(runs)} 次不稳定；{bad[0].steady.reason}"]


def _sweep_table(record: Record, levels: Sequence[dict[str, object]]) -> Table:
    names = ("ttft_ms.p50", "ttft_ms.p99", "tpot_ms.p50", "output_tokens_per_s", "goodput.share")
    heads = ("负载", "TTFT p50", "TTFT p99", "TPOT p50", "输出 tok/s", "达到 SLO")
    table = Table(*heads, title="扫描", title_justify="left")
    for labels in levels:
        figures = {f.name: f for f in record.figures if f.labels == labels}
        table.add_row(title_of(labels), *(number(figures.get(name)) for name in names))
    return table
