"""Where a decode step's time goes: a stacked bar a profile, against the floor of the roofline."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from inferlab.measure.kernel_classes import KEPT_OF_A_NAME, PARTS, part_of
from inferlab.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    new_figure,
    source_note,
)
from inferlab.records.schema import Figure as Measured

NAMES = {
    "matmul": "矩阵乘",
    "attention": "attention 与写 KV",
    "elementwise": "norm、rope、激活",
    "sampling": "采样",
    "copy": "拷贝",
    "prepare": "准备输入",
    "communication": "通信",
    "other": "未识别",
    "gaps": "空隙",
}
_COLOURS = dict(
    zip(PARTS, (BLUE, GREEN, ORANGE, PURPLE, SKY, "#8C6D31", "#999933", "black", "#CCCCCC"),
        strict=True)
)  # fmt: skip
LABEL_FROM_SHARE = 0.05
INVISIBLE_MS = 1e-6  # what is left by rounding of a part whose kernels were all moved


def part_times(figures: Iterable[Measured]) -> dict[str, float]:
    """Seconds of each part of a profiled step, by what its kernels' names say today.

    A record keeps the part that a kernel was counted to when it was made, and the kernel's name:
    a name that was understood only later is moved, so that the record need not be made again.
    """
    times: dict[str, float] = defaultdict(float)
    for figure in figures:
        part = figure.labels.get("part", "")
        if figure.name == "step_time":
            times[part] += figure.mean
        elif figure.name == "kernel_time" and len(figure.labels["full"]) < KEPT_OF_A_NAME:
            times[part] -= figure.mean
            times[part_of(figure.labels["full"])] += figure.mean
    return dict(times)


def step_attribution(
    profiles: Mapping[str, Sequence[Measured]],
    floor_ms: Mapping[str, float] | None = None,
    *,
    title: str = "一步 decode 的时间花在哪里",
    note: str = "",
) -> Figure:
    """One bar a profile in milliseconds.

    Args:
        profiles: name for the reader → the figures of `measure.step_profile`.
        floor_ms: name → the roofline's time, drawn as a red line. A black diamond is the step as
            the client saw it without the profiler.
    """
    figure, axes = new_figure(width=9.4, height=1.9 + 0.6 * len(profiles))
    shown: set[str] = set()
    for place, (name, figures) in enumerate(profiles.items()):
        times = {part: 1e3 * seconds for part, seconds in part_times(figures).items()}
        total, left = sum(times.get(part, 0.0) for part in PARTS), 0.0
        for part in (part for part in PARTS if times.get(part, 0.0) > INVISIBLE_MS):
            label = NAMES[part] if part not in shown else None
            axes.barh(place, times[part], left=left, color=_COLOURS[part], height=0.56, label=label)
            if times[part] > LABEL_FROM_SHARE * total:
                dark = part not in ("gaps", "copy", "elementwise")
                middle, colour = left + times[part] / 2, "white" if dark else "black"
                axes.text(middle, place, f"{times[part]:.2f}", ha="center", va="center",
                          fontsize=8.5, color=colour)  # fmt: skip
            left += times[part]
            shown.add(part)
        axes.text(left, place - 0.36, f"{left:.2f} ms", fontsize=8.5, color=GREY, ha="right")
        if "unprofiled" in times:
            axes.plot(times["unprofiled"], place + 0.36, "D", color="black", markersize=5,
                      label="不开 profiler" if place == 0 else None)  # fmt: skip
        if floor_ms and name in floor_ms:
            axes.vlines(floor_ms[name], place - 0.42, place + 0.42, color=RED, linewidth=2,
                        label="roofline 下限" if place == 0 else None)  # fmt: skip
    axes.set_yticks(range(len(profiles)), list(profiles))
    axes.set_ylim(len(profiles) - 0.4, -0.6)
    axes.set_xlabel("ms")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=6, fontsize=8.5)
    source_note(figure, note)
    return figure
