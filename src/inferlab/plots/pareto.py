"""Throughput against latency with both ceilings: what bandwidth and what compute allow at most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inferlab.arithmetic.roofline import decode, prefill
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    interval_bars,
    new_figure,
    plain_log_ticks,
    source_note,
)
from inferlab.records.schema import Figure as Measured

MOST_BATCH = 2048


@dataclass(frozen=True)
class Operated:
    """One operating point: its name on the picture, output tokens a second, and TPOT in ms."""

    name: str
    tokens_per_s: Measured
    tpot_ms: Measured


@dataclass(frozen=True)
class Service:
    """What the ceilings are computed for: one request's tokens on one device."""

    shape: ModelShape
    ceilings: Ceilings
    prompt: int
    output: int

    @property
    def context(self) -> int:
        """Mean tokens in a sequence's cache while it decodes."""
        return self.prompt + self.output // 2

    def bandwidth_roof(self, batches: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens a second and ms a token, were the reading of weights and KV all there is."""
        seconds = np.array([self._decode(batch).memory_s for batch in batches])
        return np.array(batches) / seconds, 1e3 * seconds

    def compute_limit(self) -> float:
        """Output tokens a second, were the FLOPs of prefill and decode all there is."""
        first = prefill(self.shape, 1, self.prompt).total.flops
        later = decode(self.shape, 1, self.context).total.flops * (self.output - 1)
        return self.output / ((first + later) / self.ceilings.flops_per_s)

    def _decode(self, batch: int):
        return decode(self.shape, batch, self.context).total.against(self.ceilings)


def pareto_with_ceilings(
    points: Sequence[Operated], service: Service | None, *, slo_ms: float = 0.0,
    title: str = "吞吐与每 token 时间", note: str = "",
) -> Figure:  # fmt: skip
    """Measured points from light to heavy load, the two ceilings, and the SLO.

    Args:
        service: what the ceilings are drawn for; None leaves them out.
        slo_ms: TPOT bound, drawn as a line; 0 for none.
    """
    figure, axes = new_figure(width=8.4, height=4.8)
    x = np.array([point.tokens_per_s.mean for point in points])
    y = np.array([point.tpot_ms.mean for point in points])
    right = 1.35 * max([x.max(), service.compute_limit() if service else 0])
    bottom, top = y.min() / 3, 3 * max(y.max(), slo_ms)
    if service:
        _ceilings(axes, service, right)
        bottom = service.bandwidth_roof([1])[1][0] / 3
    _bars(axes, points)
    if slo_ms:
        axes.axhline(slo_ms, color=RED, linestyle="--", linewidth=1, label=f"SLO {slo_ms:g} ms")
    axes.set(xscale="log", yscale="log", xlim=(x.min() / 2, right))
    axes.set_ylim(bottom, top)
    plain_log_ticks(axes.xaxis)
    plain_log_ticks(axes.yaxis)
    axes.set_xlabel("输出吞吐（tok/s，只计生成的 token）")
    axes.set_ylabel("TPOT（ms）")
    axes.set_title(title, loc="left")
    axes.legend(fontsize=8.5, loc="upper left")
    source_note(figure, note)
    return figure


def _ceilings(axes: Axes, service: Service, right: float) -> None:
    batches = np.unique(np.geomspace(1, MOST_BATCH, 80).astype(int)).tolist()
    speed, time = service.bandwidth_roof(batches)
    axes.plot(speed, time, color="black", linewidth=1.4, label="带宽上限：读权重与 KV")
    limit = service.compute_limit()
    axes.axvline(limit, color=ORANGE, linewidth=1.6, label="算力上限：prefill 与 decode 的 FLOP")
    axes.axvspan(limit, right, color=ORANGE, alpha=0.10, linewidth=0)
    axes.fill_between(speed, time, time.min() / 100, color=GREY, alpha=0.14, linewidth=0)


def _bars(axes: Axes, points: Sequence[Operated]) -> None:
    x, y = ([getattr(p, name).mean for p in points] for name in ("tokens_per_s", "tpot_ms"))
    axes.plot(x, y, color=BLUE, linewidth=1)
    for point in points:
        speed, time = point.tokens_per_s, point.tpot_ms
        axes.errorbar(speed.mean, time.mean, xerr=interval_bars([speed]),
                      yerr=interval_bars([time]), fmt="o", color=BLUE, capsize=2,
                      markersize=4.5)  # fmt: skip
        axes.annotate(point.name, (speed.mean, time.mean), (-4, 7), textcoords="offset points",
                      fontsize=8, color=GREEN, ha="right")  # fmt: skip
