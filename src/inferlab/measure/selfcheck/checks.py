"""The checks: each runs a load against a null server and gives rows for the table."""

from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np

from inferlab.load.arrivals import first, gamma, poisson
from inferlab.load.null_process import NullProcess, null_server
from inferlab.load.runner import RunResult
from inferlab.load.worker import WorkerPlan, WorkerResult, run_in_process
from inferlab.measure.selfcheck.floor import floor_cpu_s
from inferlab.measure.selfcheck.truth import (
    FAILED_ENDS,
    Row,
    Truth,
    itl_errors_ms,
    spread,
    truth_of,
)
from inferlab.measure.statistics import coefficient_of_variation, lag1_autocorrelation
from inferlab.measure.summary import summarise


def latency(requests: int = 160) -> list[Row]:
    """TTFT and ITL at 8 req/s against the server's own log: p50 and p99 within 1 ms."""
    with null_server(ttft_ms=200, ttft_jitter=0.2, itl_ms=20) as server:
        plan = WorkerPlan(server.url, requests, rate_per_s=8, output_tokens=64)
        run = run_in_process(plan).run
        truth = truth_of(server)
    summary = summarise(run.samples)
    rows = []
    for name, seen, true in (
        ("TTFT", [s.ttft_ms or 0 for s in run.samples], [t.ttft_ms for t in truth.values()]),
        (
            "ITL",
            [value for s in run.samples for value in s.itl_ms],
            [gap for t in truth.values() for gap in t.gaps_ms],
        ),
    ):
        for label, reported, exact in zip(("p50", "p99"), spread(seen), spread(true), strict=True):
            value = f"{reported:.2f} / {exact:.2f} ms"
            close = abs(reported - exact) <= 1.0 and summary.ok == requests
            rows.append(Row(f"{name} {label}：报告 / 服务端日志", value, "相差 ≤ 1 ms", close))
    return rows


def omission(requests: int = 240) -> list[Row]:
    """Slots 4, service 1 s, 8 req/s: p99 E2E from the schedule within 1 %, capped or not."""
    rows = []
    for cap in (0, 16):
        with null_server(ttft_ms=200, itl_ms=800 / 15, slots=4) as server:
            plan = WorkerPlan(
                server.url, requests, rate_per_s=8, output_tokens=16, max_in_flight=cap, seed=1
            )
            run = run_in_process(plan).run
            truth = truth_of(server)
        due = scheduled_times(plan)
        exact = [(truth[str(i)].ended - run.origin_s - at) * 1e3 for i, at in enumerate(due)]
        reported = [sample.e2e_ms for sample in run.samples]
        (_, seen), (_, true) = spread(reported), spread(exact)
        where = f"客户端上限 {cap}" if cap else "不设上限"
        value = f"{seen:.0f} / {true:.0f} ms"
        rows.append(
            Row(f"协调遗漏（{where}）：E2E p99 报告 / 真实", value, "相差 ≤ 1 %",
                abs(seen / true - 1) <= 0.01)
        )  # fmt: skip
    return rows


def scheduled_times(plan: WorkerPlan) -> list[float]:
    """The times of a plan's requests, drawn again from its seed."""
    random = Random(plan.seed)
    return [item.at_s for item in plan.timed(random, plan.specs(random))]


def chunks(requests: int = 80) -> list[Row]:
    """Four tokens a chunk: mean ITL per token within 1 %, with and without running counts."""
    rows = []
    for continuous in (True, False):
        with null_server(ttft_ms=100, itl_ms=20, chunk_tokens=4) as server:
            plan = WorkerPlan(server.url, requests, concurrency=16, continuous_usage=continuous)
            run = run_in_process(plan).run
            truth = truth_of(server)
        summary = summarise(run.samples)
        true = float(np.mean([gap / 4 for t in truth.values() for gap in t.gaps_ms]))
        seen = [figure.mean if figure else 0.0 for figure in (summary.itl_ms, summary.tpot_ms)]
        how = "逐块 usage" if continuous else "只有末尾 usage"
        value = f"ITL {seen[0]:.3f}、TPOT {seen[1]:.3f} / {true:.3f} ms"
        close = all(abs(figure / true - 1) <= 0.01 for figure in seen)
        rows.append(Row(f"每块 4 token（{how}）", value, "相差 ≤ 1 %", close))
    return rows


def failures(requests: int = 400) -> list[Row]:
    """Every way to fail is counted as one, and percentiles are those of the complete answers."""
    rows = []
    for end, status in FAILED_ENDS.items():
        share = 0.05 if end == "fail_500" else 0.1
        with null_server(ttft_ms=20, itl_ms=2, **{end: share}) as server:
            plan = WorkerPlan(server.url, requests, concurrency=16, output_tokens=32, check=False)
            run = run_in_process(plan).run
            truth = truth_of(server)
        summary = summarise(run.samples)
        true = Counter(entry.end for entry in truth.values())
        value = f"失败 {summary.failures.get(status, 0)}、成功 {summary.ok}"
        same = summary.failures == {status: true[end]} and summary.ok == true["ok"]
        apart = _same_percentiles(run, truth)
        rows.append(
            Row(f"{end} {share:.0%}", value, f"失败 {true[end]}、成功 {true['ok']}，分位数不含失败",
                same and apart and true[end] > 0)
        )  # fmt: skip
    return rows


def _same_percentiles(run: RunResult, truth: dict[str, Truth]) -> bool:
    good = {user for user, entry in truth.items() if entry.end == "ok"}
    summary = summarise([s for s in run.samples if str(s.index) in good])
    return summary.e2e_ms == summarise(run.samples).e2e_ms


def arrivals(requests: int = 3000) -> list[Row]:
    """Gaps as the server saw them, and as drawn: CV and lag-1 autocorrelation."""
    with null_server(ttft_ms=1, itl_ms=1) as server:
        plan = WorkerPlan(server.url, requests, rate_per_s=150, output_tokens=1)
        run_in_process(plan)
        arrived = sorted(entry.arrived for entry in truth_of(server).values())
    random = Random(3)
    return [
        _gaps_row("Poisson，到达服务端的间隔", np.diff(arrived), 1.0),
        _gaps_row("Poisson，抽样 20k", np.diff(first(poisson(8, random), 20_000)), 1.0),
        _gaps_row("Gamma CV 3，抽样 20k", np.diff(first(gamma(8, 3, random), 20_000)), 3.0),
    ]


def _gaps_row(name: str, gaps: np.ndarray, cv: float) -> Row:
    """Bars are three standard errors wide for the number of gaps (wider for heavy-tailed gamma)."""
    seen, lag = coefficient_of_variation(gaps), lag1_autocorrelation(gaps)
    error = 3 / len(gaps) ** 0.5
    ok = abs(seen - cv) <= error * (1 + 2 * cv**2) and abs(lag) <= error
    value = f"CV {seen:.3f}，lag-1 自相关 {lag:+.3f}"
    return Row(name, value, f"CV {cv:g}，自相关 0（±3 标准误）", ok)


def start_up() -> list[Row]:
    """CPU seconds of the whole client process for 4 requests."""
    with null_server(ttft_ms=10, itl_ms=2) as server:
        cpu_s = _small_run(server).cpu_s
    return [Row("启动（4 个请求）", f"{cpu_s:.2f} CPU s", "≤ 0.5 CPU s", cpu_s <= 0.5)]


def _small_run(server: NullProcess) -> WorkerResult:
    return run_in_process(WorkerPlan(server.url, 4, concurrency=4, output_tokens=4))


def cost(streams: int = 512, tokens: int = 256, repeats: int = 3) -> list[Row]:
    """CPU per 1,000 tokens net of start-up, 512 streams of 50 tok/s; the median of repeats."""
    thousands = streams * tokens / 1000
    costs, servers, floors = [], [], []
    for _ in range(repeats):
        with null_server(ttft_ms=200, ttft_jitter=0.9, itl_ms=20) as server:
            floors.append(floor_cpu_s(server.port, streams, tokens) / thousands)
            small = _small_run(server).cpu_s
            before = server.cpu_s()
            plan = WorkerPlan(server.url, streams, concurrency=streams, output_tokens=tokens)
            costs.append((run_in_process(plan).cpu_s - small) / thousands)
            servers.append((server.cpu_s() - before) / thousands)
    middle, theirs, least = (float(np.median(values)) for values in (costs, servers, floors))
    value = (
        f"{middle:.4f}（{min(costs):.4f}–{max(costs):.4f}）CPU s；"
        f"裸 socket 下限 {least:.4f}；空服务器 {theirs:.4f}"
    )
    name = f"每 1,000 token 的净开销，{streams} 流 × 50 tok/s"
    return [Row(name, value, "≤ 0.02 CPU s", middle <= 0.02)]


def capacity(streams: tuple[int, ...] = (1000, 2000, 2500), tokens: int = 160) -> list[Row]:
    """Concurrent streams of 20 tok/s: mean error of a chunk's ITL against the server's log."""
    return [_capacity_row(number, tokens) for number in streams]


def _capacity_row(streams: int, tokens: int) -> Row:
    with null_server(ttft_ms=3500, ttft_jitter=0.6, itl_ms=50) as server:
        plan = WorkerPlan(server.url, streams, concurrency=streams, output_tokens=tokens)
        run = run_in_process(plan).run
        truth = truth_of(server)
    errors = np.abs(itl_errors_ms(run, truth))
    seen = spread([gap for s in run.samples for gap in s.chunk_gap_ms])
    true = spread([gap for t in truth.values() for gap in t.gaps_ms])
    value = (
        f"p50 {seen[0]:.2f} / {true[0]:.2f}，p99 {seen[1]:.2f} / {true[1]:.2f} ms；"
        f"逐块误差均值 {errors.mean():.2f}、p99 {np.percentile(errors, 99):.2f} ms"
    )
    bar = "p50 相差与逐块误差均值 < 2 ms"
    whole = all(sample.ok for sample in run.samples) and len(run.samples) == streams
    close = abs(seen[0] - true[0]) < 2 and errors.mean() < 2
    return Row(f"{streams} 流 × 20 tok/s：ITL 报告 / 日志", value, bar, close and whole)


CHECKS: dict[str, Callable[[], list[Row]]] = {
    "latency": latency,
    "omission": omission,
    "chunks": chunks,
    "failures": failures,
    "arrivals": arrivals,
    "startup": start_up,
    "cost": cost,
    "capacity": capacity,
}
