"""The GPU monitor behind `scripts/gpu_monitor.py`: sample, write, serve and show, at little
cost."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from inferlab.errors import LabError, UsageError
from inferlab.hardware import nvml
from inferlab.hardware.exporter import SampleCollector, serve
from inferlab.hardware.phases import ticks
from inferlab.hardware.sample import GpuSample
from inferlab.hardware.sampler import GpuSampler
from inferlab.hardware.view import LiveView
from inferlab.hardware.writers import CsvWriter, JsonlWriter, ParquetWriter, SampleWriter

MAXIMUM_HZ = 200.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the monitor; returns the process's exit code (2: wrong use, or no GPU)."""
    options = _parse(arguments)
    try:
        with nvml.nvml_session(), ExitStack() as stack:
            Monitor(options, stack).run()
    except LabError as error:
        print(f"错误: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"错误: 写入失败（{error}） → 检查磁盘空间和权限", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_monitor", description="GPU 监控：NVML + GPM")
    parser.add_argument("--hz", type=float, default=10.0, help="每秒采样次数（默认 10）")
    parser.add_argument("--duration", type=float, help="运行秒数；缺省为一直运行到 Ctrl-C")
    parser.add_argument("--gpu", type=_indices, help="GPU 编号，如 0,1；缺省为全部")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="追加写入 CSV")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="追加写入 JSONL")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="结束时写成 Parquet")
    parser.add_argument("--prometheus", type=int, metavar="PORT", help="提供 /metrics")
    parser.add_argument("--bind", default="127.0.0.1", help="/metrics 监听地址（默认 127.0.0.1）")
    parser.add_argument("--processes", action="store_true", help="列出各进程的显存")
    parser.add_argument(
        "--pcie", action="store_true", help="无 GPM 时也读 PCIe 流量（慢，每秒一次）"
    )
    parser.add_argument("--no-gpm", action="store_true", help="不读 GPM 指标")
    parser.add_argument("--self-cost", action="store_true", help="结束时报告自身 CPU 占用")
    parser.add_argument("--quiet", action="store_true", help="不显示实时表格")
    return parser.parse_args(arguments)


def _indices(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"GPU 编号应为 0 或 0,1 这样的数字：{text!r}") from None


class Monitor:
    """One run of the monitor. Needs an open `nvml_session()`; `stack` closes what it opens."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        _check(options)
        self._options = options
        self._stop = threading.Event()
        self._gpus = [nvml.identify(i) for i in options.gpu or range(nvml.gpu_count())]
        self._samplers = [
            stack.enter_context(GpuSampler(gpu.index, gpm=not options.no_gpm, pcie=options.pcie))
            for gpu in self._gpus
        ]
        self._writers = _open_writers(options, stack)
        self._collector = self._serve()
        self._view = self._open_view(stack)

    def _serve(self) -> SampleCollector | None:
        if self._options.prometheus is None:
            return None
        collector = SampleCollector({gpu.index: gpu.name for gpu in self._gpus})
        port = serve(collector, self._options.prometheus, self._options.bind)
        print(f"Prometheus 指标：http://{self._options.bind}:{port}/metrics", file=sys.stderr)
        return collector

    def _open_view(self, stack: ExitStack) -> LiveView | None:
        if self._options.quiet or not sys.stdout.isatty():
            return None
        return stack.enter_context(LiveView(self._gpus, processes=self._options.processes))

    def run(self) -> None:
        """Sample until the duration is over or Ctrl-C or SIGTERM comes; then report."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        began_s, cpu_before_s = time.monotonic(), time.process_time()
        count = self._loop(began_s)
        self._report(count, time.monotonic() - began_s, time.process_time() - cpu_before_s)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _loop(self, began_s: float) -> int:
        count = 0
        for _ in ticks(self._options.hz, self._stop):
            samples = [sampler.sample() for sampler in self._samplers]
            self._hand_out(samples)
            count += 1
            duration_s = self._options.duration
            if duration_s is not None and time.monotonic() - began_s >= duration_s:
                break
        return count

    def _hand_out(self, samples: list[GpuSample]) -> None:
        for writer in self._writers:
            writer.write(samples)
        if self._collector is not None:
            self._collector.update(samples)
        if self._view is not None:
            self._view.update(samples)

    def _report(self, count: int, wall_s: float, cpu_s: float) -> None:
        if self._view is not None:
            self._view.close()
        if self._options.processes:
            self._print_processes()
        self._print_missing()
        if self._options.self_cost:
            share, hz = 100 * cpu_s / wall_s, (count - 1) / wall_s
            print(
                f"自身开销：{cpu_s:.3f} s CPU / {wall_s:.2f} s = {share:.2f} % 的一个核；"
                f"每个 GPU {count} 次采样，{hz:.2f} Hz（不含启动）"
            )
            self._print_costs()

    def _print_processes(self) -> None:
        for gpu in self._gpus:
            for each in nvml.gpu_processes(gpu.index):
                used = "未知" if each.used_bytes is None else f"{each.used_bytes / 2**20:.0f} MiB"
                print(f"GPU {each.index}  pid {each.pid}  {each.name}  {used}")

    def _print_missing(self) -> None:
        for sampler in self._samplers:
            if sampler.unsupported:
                missing = "；".join(f"{name}：{why}" for name, why in sampler.unsupported.items())
                print(f"GPU {sampler.index} 不提供：{missing}", file=sys.stderr)

    def _print_costs(self) -> None:
        for sampler in self._samplers:
            costs = "，".join(f"{name} {ms:.3f}" for name, ms in sampler.costs_ms().items())
            print(f"GPU {sampler.index} 单次读取（ms CPU）：{costs}")
            for name, period_s in sampler.periods_s().items():
                print(f"GPU {sampler.index} {name} 至多每 {period_s:.2f} s 读一次")


def _check(options: argparse.Namespace) -> None:
    if not 0 < options.hz <= MAXIMUM_HZ:
        raise UsageError(f"--hz {options.hz:g} 超出范围", remedy=f"取 0 到 {MAXIMUM_HZ:g}")
    if options.duration is not None and options.duration <= 0:
        raise UsageError(f"--duration {options.duration:g} 不是正数", remedy="给出秒数，如 60")


def _open_writers(options: argparse.Namespace, stack: ExitStack) -> list[SampleWriter]:
    kinds = (
        (CsvWriter, options.csv),
        (JsonlWriter, options.jsonl),
        (ParquetWriter, options.parquet),
    )
    writers: list[SampleWriter] = []
    for kind, path in kinds:
        if path is not None:
            writers.append(kind(path))
            stack.callback(writers[-1].close)
    return writers
