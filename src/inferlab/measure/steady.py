"""Whether a run was steady, so that its window can stand for the load."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from inferlab.load.samples import RequestSample
from inferlab.measure.statistics import difference_interval, slope_interval
from inferlab.measure.window import Window, mean_in_flight, steady_window, tokens_arrived

_BINS = 10


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Whether a window can stand for the load.

    `verdict` is `steady`, `too short`, `overloaded`, `drifting` or `in step`;
    `reason` says why not, in one line for the reader.
    """

    verdict: str
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was steady."""
        return self.verdict == "steady"


def steady_state(
    samples: Sequence[RequestSample], window: Window | None = None, *, closed: bool = False
) -> SteadyState:
    """Says when a run was overloaded (the queue grows), too short, drifting, or in step.

    Overloaded: requests in flight grow over the window by a quarter of their mean or more, with a
    slope whose 95 % interval is above zero. Too short: under 30 complete answers, a window under
    three times the median answer, or a warm-up under one: what is in flight has not yet grown to
    what the rate holds, and too little ends in the window. Drifting: token throughput of the second
    half differs by more than a tenth from the first, beyond Welch's 95 % interval. In step (closed
    loops only): the answers begin together, all prefill and then all decode, so that throughput
    differs by 5 % or more with where in an answer's time the window is cut.

    Args:
        closed: the client holds the number in flight from the start on, however short the warm-up.
    """
    window = window or steady_window(samples)
    done = [s for s in samples if s.ok and s.scheduled_s in window]
    growth = _growth(samples, window)
    if growth is not None:
        return SteadyState("overloaded", f"在途请求数在窗口内增长 {growth:.0%}：负载超过服务能力")
    warm_up_s = np.inf if closed else window.start_s - min(s.scheduled_s for s in samples)
    if short := _too_short(done, window, float(warm_up_s)):
        return SteadyState("too short", short)
    whole = [s for s in samples if s.ok]
    if drift := _drift(whole, window):
        return SteadyState("drifting", f"后半段吞吐与前半段相差 {drift:+.0%}：还没有稳定")
    if closed and (step := _in_step(done, whole, window)):
        return SteadyState("in step", step)
    return SteadyState("steady")


def _growth(samples: Sequence[RequestSample], window: Window) -> float | None:
    levels = np.array([mean_in_flight(samples, part) for part in _parts(window)])
    if levels.mean() <= 0:
        return None
    slope = slope_interval(levels)
    gained = slope.mean * (_BINS - 1)
    share = gained / float(levels.mean())
    return share if slope.low > 0 and share >= 0.25 and gained >= 2 else None


def _too_short(done: Sequence[RequestSample], window: Window, warm_up_s: float) -> str:
    if len(done) < 30:
        return f"窗口内只有 {len(done)} 个完整回答，至少要 30 个（p99 至少要 100 个）"
    median_s = _median_answer_s(done)
    if window.duration_s < 3 * median_s:
        return f"窗口 {window.duration_s:.1f} s 不到中位 E2E（{median_s:.1f} s）的 3 倍"
    if warm_up_s < median_s:
        return f"预热 {warm_up_s:.1f} s 不到中位 E2E（{median_s:.1f} s）：在途请求还没有满"
    return ""


def _drift(done: Sequence[RequestSample], window: Window) -> float | None:
    rates = np.array([tokens_arrived(done, part) for part in _parts(window)], dtype=float)
    early, late = rates[: _BINS // 2], rates[_BINS // 2 :]
    if early.mean() <= 0:
        return None
    change = float(late.mean() / early.mean() - 1)
    sure = not difference_interval(late, early).contains(0.0)
    return change if abs(change) > 0.1 and sure else None


def _in_step(done: Sequence[RequestSample], whole: Sequence[RequestSample], window: Window) -> str:
    answer_s = _median_answer_s(done)
    phases = np.array([sample.scheduled_s for sample in done]) / answer_s
    together = np.abs(np.exp(2j * np.pi * phases).mean())  # 1: at one moment; 0: spread
    if together < 0.4:
        return ""
    cuts = np.linspace(0, answer_s, 9).tolist()
    parts = [Window(window.start_s + cut_s, window.end_s) for cut_s in cuts]
    parts += [Window(window.start_s, window.end_s - cut_s) for cut_s in cuts]
    rates = [tokens_arrived(whole, part) / part.duration_s for part in parts]
    spread = (max(rates) - min(rates)) / rates[0]
    if spread < 0.05:
        return ""
    return (
        f"请求齐步走，窗口的边界挪动不到一个回答的时间，吞吐就差 {spread:.0%}："
        f"用 ramp 把起步错开约 {answer_s:.2g} s"
    )


def _median_answer_s(done: Sequence[RequestSample]) -> float:
    return float(np.median([sample.e2e_ms for sample in done])) / 1e3


def _parts(window: Window) -> list[Window]:
    edges = np.linspace(window.start_s, window.end_s, _BINS + 1).tolist()
    return [Window(a, b) for a, b in pairwise(edges)]
