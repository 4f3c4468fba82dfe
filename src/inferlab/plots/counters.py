"""GPU counters side by side: what GPU-Util says and what the chip really did."""

from matplotlib.figure import Figure

from inferlab.plots.style import BLUE, GREEN, GREY, ORANGE, RED, new_figure, source_note
from inferlab.records.rooflines import describe
from inferlab.records.schema import Record

PHASES = {
    "idle": "空闲",
    "one_thread": "1 个线程\n空转",
    "copy": "显存拷贝",
    "decode_batch_1": "decode\nbatch 1",
    "decode_batch_64": "decode\nbatch 64",
    "prefill_8192": "prefill\n8,192 token",
    "matmul_8192": "矩阵乘\nn = 8,192",
}
COUNTERS = {
    "gpu_util_percent": ("GPU-Util", GREY, 1.0),
    "sm_active": ("SM active", BLUE, 100.0),
    "tensor_active": ("Tensor active", GREEN, 100.0),
    "dram_active": ("DRAM active", ORANGE, 100.0),
}


def gpu_counters(record: Record) -> Figure:
    """Grouped bars a phase, in percent, from a `gpu_load` record; mean power is written above."""
    figure, axes = new_figure(width=9.0, height=4.4)
    width = 0.8 / len(COUNTERS)
    for place, (name, (label, colour, scale)) in enumerate(COUNTERS.items()):
        x = [index + (place - 1.5) * width for index in range(len(PHASES))]
        values = [scale * record.one(name, phase=phase).mean for phase in PHASES]
        axes.bar(x, values, width, color=colour, label=label)
    for index, phase in enumerate(PHASES):
        power = record.one("energy_power_w", phase=phase).mean
        axes.text(index, 104, f"{power:.0f} W", ha="center", fontsize=8.5, color=RED)
    axes.set_xticks(range(len(PHASES)), list(PHASES.values()), fontsize=8.5)
    axes.set_ylabel("%")
    axes.set_ylim(0, 112)
    axes.set_title("GPU-Util 与真实计数器（红字：平均功率）", loc="left")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, fontsize=8.5)
    source_note(figure, describe(record))
    return figure
