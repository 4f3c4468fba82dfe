"""The monitor's live table. Drawing costs more than sampling, so it is held to twice a second."""

import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from inferlab.hardware.nvml import GpuIdentity, gpu_processes
from inferlab.hardware.sample import GpuSample, carry_gpm

REDRAW_PERIOD_S = 0.5
PROCESS_PERIOD_S = 2.0
GIB = 2**30
PERCENTAGES = ("Util %", "SM %", "占用 %", "Tensor %", "DRAM %")
COLUMNS = ("GPU", *PERCENTAGES, "显存 GiB", "功率 W", "MHz", "°C", "降频")


class LiveView:
    """Shows the latest sample of each GPU; `update` may be called at any rate."""

    def __init__(self, gpus: Sequence[GpuIdentity], *, processes: bool) -> None:
        self._gpus = {gpu.index: gpu for gpu in gpus}
        self._title = "  ".join(f"GPU {gpu.index}: {gpu.name}" for gpu in gpus)
        self._processes = processes
        self._latest: dict[int, GpuSample] = {}
        self._process_lines: list[str] = []
        self._processes_due_s = self._redraw_due_s = 0.0
        self._live = Live(console=Console(), auto_refresh=False)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._live.stop()

    def update(self, samples: Sequence[GpuSample]) -> bool:
        """Redraw if the last drawing is old enough; says whether it did."""
        now_s = time.monotonic()
        for each in samples:
            self._latest[each.index] = carry_gpm(each, self._latest.get(each.index))
        if now_s < self._redraw_due_s:
            return False
        self._redraw_due_s = now_s + REDRAW_PERIOD_S
        self._live.update(self._table(now_s), refresh=True)
        return True

    def _table(self, now_s: float) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=0, title=self._title, title_justify="left")
        table.caption, table.caption_justify = self._caption(now_s), "left"
        for column in COLUMNS[:-1]:
            table.add_column(column, justify="right")
        table.add_column(COLUMNS[-1], overflow="fold")
        for each in self._latest.values():
            table.add_row(*cells(each, self._gpus[each.index]))
        return table

    def _caption(self, now_s: float) -> str | None:
        if self._processes and now_s >= self._processes_due_s:
            self._processes_due_s = now_s + PROCESS_PERIOD_S
            found = [each for index in self._gpus for each in gpu_processes(index)]
            self._process_lines = [
                f"GPU {p.index}  {p.pid}  {p.name}  {gib(p.used_bytes)}" for p in found
            ]
        return "\n".join(self._process_lines) or None


def cells(sample: GpuSample, gpu: GpuIdentity) -> list[str]:
    """One table row of a sample; what the GPU does not report is shown as a dash."""
    limit = "" if gpu.power_limit_w is None else f"/{gpu.power_limit_w:.0f}"
    total = "" if gpu.memory_bytes is None else f"/{gpu.memory_bytes / GIB:.0f}"
    used = "–" if sample.memory_used_bytes is None else f"{sample.memory_used_bytes / GIB:.1f}"
    reasons = [name for name in sample.throttle_reasons or () if name != "gpu_idle"]
    return [
        str(gpu.index),
        number(sample.gpu_util_percent),
        percent(sample.sm_active),
        percent(sample.sm_occupancy),
        percent(sample.tensor_active),
        percent(sample.dram_active),
        f"{used}{total}",
        f"{number(sample.power_w)}{limit}",
        number(sample.sm_clock_mhz),
        number(sample.temperature_c),
        " ".join(reasons) or "无",
    ]


def number(value: float | None) -> str:
    """A value without decimals, or a dash."""
    return "–" if value is None else f"{value:.0f}"


def percent(fraction: float | None) -> str:
    """`0.314` → `31`."""
    return "–" if fraction is None else f"{100 * fraction:.0f}"


def gib(size_bytes: int | None) -> str:
    """Bytes as GiB with one decimal."""
    return "–" if size_bytes is None else f"{size_bytes / GIB:.1f} GiB"
