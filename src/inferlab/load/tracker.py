"""The latency tracker behind `scripts/latency_tracker.py`: one small request every few seconds to a
live service, written to CSV and served to Prometheus.

Probes leave by the clock, whether or not the one before has ended: a prober that waits for a
stalled service records the stall once and makes it look rare.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from inferlab.errors import LabError, UsageError
from inferlab.load.client import Client
from inferlab.load.endpoint import Endpoint
from inferlab.load.event_loop import run_async
from inferlab.load.probe import check_endpoint
from inferlab.load.samples import RequestSample, RequestSpec, Status
from inferlab.load.tracker_outputs import CsvLog, Probe, ProbeMetrics

KEY_VARIABLE = "LAB_API_KEY"
OnProbe = Callable[[Probe], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent and when.

    Args:
        spec: the small request.
        interval_s: from one probe's start to the next.
        duration_s: no probe leaves later than this; None goes on until Ctrl-C.
    """

    spec: RequestSpec
    interval_s: float = 10.0
    duration_s: float | None = None


def track(endpoint: Endpoint, plan: Plan, on_probe: OnProbe) -> list[Probe]:
    """Probes until the plan's end, Ctrl-C or SIGTERM; probes still under way then are dropped.

    Args:
        endpoint: the service; it must answer the first request.
        plan: what to send and when.
        on_probe: called with each probe as it ends; what it raises ends the tracking.

    Returns:
        all probes, those that failed included, in the order they ended.

    Raises:
        LabError: the endpoint cannot be used (wrong address, key, model, no streaming).
    """
    return run_async(_track(endpoint, plan, on_probe))


async def _track(endpoint: Endpoint, plan: Plan, on_probe: OnProbe) -> list[Probe]:
    _cancel_on_sigterm()
    probes: list[Probe] = []

    def keep(probe: Probe) -> None:
        probes.append(probe)
        on_probe(probe)

    client = None
    with suppress(asyncio.CancelledError):
        try:
            client = Client(await check_endpoint(endpoint))
            await _send_by_the_clock(client, plan, keep)
        except* OSError as group:
            raise group.exceptions[0] from None
    if client is not None:
        client.close()
    return probes


async def _send_by_the_clock(client: Client, plan: Plan, keep: OnProbe) -> None:
    wall_s, monotonic_s = time.time() - client.now(), time.monotonic() - client.now()

    async def probe(index: int, due_s: float) -> None:
        sample = await client.send(plan.spec, scheduled_s=due_s, index=index)
        if sample.status is not Status.CANCELLED:
            keep(Probe(wall_s + due_s, monotonic_s + due_s, sample))

    started, index = client.now(), 0
    async with asyncio.TaskGroup() as group:
        while plan.duration_s is None or index * plan.interval_s < plan.duration_s:
            due_s = started + index * plan.interval_s
            await asyncio.sleep(max(0.0, due_s - client.now()))
            group.create_task(probe(index, due_s))
            index += 1


def _cancel_on_sigterm() -> None:
    task = asyncio.current_task()
    # Not possible outside the main thread, nor on Windows: there SIGTERM ends the process.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def report(probes: Sequence[Probe]) -> str:
    """One line: how many probes, how many failed by kind, and the latencies' p50 and p99."""
    done = [probe.sample for probe in probes if probe.sample.ok]
    failed: dict[str, int] = {}
    for probe in probes:
        if not probe.sample.ok:
            failed[probe.sample.status] = failed.get(probe.sample.status, 0) + 1
    parts = [f"共 {len(probes)} 次探测，失败 {sum(failed.values())} 次"]
    if failed:
        parts[0] += "（" + "，".join(f"{kind} {n}" for kind, n in failed.items()) + "）"
    parts += [
        _p50_p99("TTFT", [s.ttft_ms for s in done if s.ttft_ms is not None]),
        _p50_p99("TPOT", [s.tpot_ms for s in done if s.tpot_ms is not None]),
        _p50_p99("E2E", [s.e2e_ms for s in done]),
    ]
    return "；".join(filter(None, parts))


def _p50_p99(name: str, values: list[float]) -> str:
    if len(values) < 2:
        return ""
    cuts = quantiles(values, n=100, method="inclusive")
    return f"{name} p50 {cuts[49]:.1f} ms，p99 {cuts[98]:.1f} ms"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tracker; returns the exit code (2: wrong use; 1: the service cannot be used, or no
    probe succeeded)."""
    options = _parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            probes = _run(options, stack)
    except LabError as error:
        print(f"错误: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"错误: 写入失败（{error.strerror or error}） → 检查磁盘空间和权限", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    print(report(probes), file=sys.stderr)
    return 1 if probes and not any(probe.sample.ok for probe in probes) else 0


def _run(options: argparse.Namespace, stack: ExitStack) -> list[Probe]:
    endpoint, plan = _endpoint(options), _plan(options)
    takers: list[OnProbe] = []
    if options.csv is not None:
        takers.append(stack.enter_context(CsvLog(options.csv)).write)
    if options.prometheus is not None:
        metrics = ProbeMetrics(options.model)
        port = metrics.serve(options.prometheus)
        stack.callback(metrics.close)
        takers.append(metrics.observe)
        print(f"Prometheus 指标：http://127.0.0.1:{port}/metrics", file=sys.stderr, flush=True)
    if not options.quiet:
        takers.append(_print_line)

    def hand_out(probe: Probe) -> None:
        for take in takers:
            take(probe)

    return track(endpoint, plan, hand_out)


def _print_line(probe: Probe) -> None:
    sample = probe.sample
    clock = time.strftime("%H:%M:%S", time.localtime(probe.wall_s))
    if not sample.ok:
        print(f"{clock}  {sample.status}：{sample.error}", flush=True)
        return
    parts = [("TTFT", sample.ttft_ms), ("TPOT", sample.tpot_ms), ("E2E", sample.e2e_ms)]
    shown = "  ".join(f"{name} {value:8.1f} ms" for name, value in parts if value is not None)
    print(f"{clock}  {shown}  {_tokens(sample)}", flush=True)


def _tokens(sample: RequestSample) -> str:
    cached = f"（缓存 {sample.cached_tokens}）" if sample.cached_tokens else ""
    return f"{sample.prompt_tokens}{cached} → {sample.output_tokens} token"


def _endpoint(options: argparse.Namespace) -> Endpoint:
    key = options.api_key or os.environ.get(KEY_VARIABLE, "")
    endpoint = Endpoint(
        options.url, options.model, options.api, api_key=key, timeout_s=options.timeout
    )
    _ = endpoint.address  # a wrong address is wrong use, to be said before anything is written
    return endpoint


def _plan(options: argparse.Namespace) -> Plan:
    for name in ("interval", "duration", "timeout"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value:g} 不是正数", remedy="给出秒数，如 10")
    if options.max_tokens < 2:
        raise UsageError(f"--max-tokens {options.max_tokens} 太少", remedy="至少 2，否则没有 TPOT")
    spec = RequestSpec(options.prompt, max_tokens=options.max_tokens)
    return Plan(spec, options.interval, options.duration)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latency_tracker", description="延迟探针：定时向在线服务发一个小的流式请求"
    )
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="OpenAI 兼容服务的地址（默认本机 8000）")
    add("--model", default="lab", help="模型名（默认 lab）")
    add("--api", choices=("completions", "chat"), default="completions", help="接口")
    add("--api-key", default="", help=f"API key；也可放在环境变量 {KEY_VARIABLE} 中")
    add("--interval", type=float, default=10.0, help="每隔几秒发一次（默认 10）")
    add("--duration", type=float, help="运行秒数；缺省为一直运行到 Ctrl-C")
    add("--prompt", default="Count from one to ten:", help="prompt；太长会占用服务")
    add("--max-tokens", type=int, default=16, help="每次最多生成几个 token（默认 16）")
    add("--timeout", type=float, default=60.0, help="一个请求最多等几秒（默认 60）")
    add("--csv", type=Path, metavar="FILE", help="追加写入 CSV")
    add("--prometheus", type=int, metavar="PORT", help="在 127.0.0.1 上提供 /metrics")
    add("--quiet", action="store_true", help="不逐行显示")
    return parser
