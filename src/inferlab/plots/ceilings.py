"""Measured ceilings over size, from a `ceilings` record."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.hardware.catalog import find_gpu
from inferlab.plots.style import (
    BLUE,
    COLOURS,
    ORANGE,
    interval_bars,
    log2_axis,
    new_figure,
    source_note,
)
from inferlab.records.rooflines import describe
from inferlab.records.schema import Figure as Measured
from inferlab.records.schema import Record


def ceilings(record: Record) -> Figure:
    """Matrix products over size and dtype, and device copies over size, beside the datasheet."""
    figure, (left, right) = new_figure(2, width=9.6, height=4.0)
    spec = find_gpu(record.device)
    dtypes = dict.fromkeys(figure.labels["dtype"] for figure in record.select("matmul"))
    for place, dtype in enumerate(dtypes):
        colour = COLOURS[place % len(COLOURS)]
        _line(left, record.select("matmul", dtype=dtype), "size", 1e12, dtype, colour)
        peak = spec.dense_flops_per_s.get(dtype) if spec else None
        if peak:
            left.axhline(peak / 1e12, color=colour, linestyle="--", linewidth=0.9)
    _finish(left, "n（n×n×n 矩阵乘）", "TFLOP/s", "矩阵乘（虚线：数据手册）", "upper left")
    _line(right, record.select("device_copy"), "mib", 1e9, "拷贝（读＋写）", BLUE)
    _line(right, record.select("device_read"), "mib", 1e9, "只读", ORANGE)
    if spec:
        right.axhline(spec.memory_bytes_per_s / 1e9, color="black", linestyle="--", linewidth=0.9,
                      label="数据手册带宽")  # fmt: skip
    _finish(right, "数据量（MiB）", "GB/s", "内存带宽", "lower right")
    source_note(figure, describe(record))
    return figure


def _line(
    axes: Axes, figures: list[Measured], key: str, scale: float, label: str, colour: str
) -> None:
    x = [figure.labels[key] for figure in figures]
    mean = np.array([figure.mean for figure in figures]) / scale
    axes.errorbar(x, mean, interval_bars(figures) / scale, marker="o", markersize=4, capsize=2,
                  color=colour, label=label)  # fmt: skip


def _finish(axes: Axes, x_label: str, y_label: str, title: str, legend: Any) -> None:
    log2_axis(axes)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(fontsize=8.5, loc=legend)
