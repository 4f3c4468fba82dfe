"""Percentiles and intervals. Nothing here knows about requests or engines; only numpy and scipy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from inferlab.errors import LabError

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean (or ratio) with the confidence interval of its estimate.

    `low` and `high` are minus and plus infinity when one value alone was measured: a single run
    bounds nothing.
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        """Half of the interval's length, in the unit of the mean."""
        return (self.high - self.low) / 2

    @property
    def error_bars(self) -> tuple[float, float]:
        """Distances from the mean down to `low` and up to `high`, as matplotlib's `yerr` wants."""
        return self.mean - self.low, self.high - self.mean

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside the interval, its ends included."""
        return self.low <= value <= self.high

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two intervals share a point. No test of a difference: see `compare`."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """What interleaved runs of A and B allow to be said of `ratio` = A ÷ B.

    `smallest` is the least relative difference that matters: below it none is claimed, however
    narrow the interval.
    """

    ratio: Interval
    smallest: float = 0.0

    @property
    def differs(self) -> bool:
        """Whether the interval of the ratio leaves 1 out, by a difference that matters."""
        return not self.ratio.contains(1.0) and abs(self.ratio.mean - 1) >= self.smallest

    @property
    def verdict(self) -> str:
        """`higher` or `lower` (A against B), or `no difference`."""
        if not self.differs:
            return "no difference"
        return "higher" if self.ratio.mean > 1 else "lower"


def mean_interval(values: Values, confidence: float = 0.95) -> Interval:
    """Mean of independent repeats with Student's t interval (unknown variance, small n).

    Raises:
        LabError: there is no value, or one is not finite.
    """
    data = _finite(values)
    mean, n = float(data.mean()), len(data)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1, confidence)
    half = _t(confidence, n - 1) * float(data.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, confidence)


def apart_by_chance(values: Values, confidence: float = 0.95) -> float:
    """How far two single values of the same kind may lie apart, as a share of their mean: Student's
    t × √2 × standard deviation ÷ mean.

    Raises:
        LabError: fewer than two values, or one is not finite.
    """
    found = mean_interval(values, confidence)
    if found.n < 2:
        raise LabError("一个值看不出起伏", remedy="至少重复两次")
    return math.sqrt(2 * found.n) * found.half_width / found.mean


def ratio_interval(
    a: Values, b: Values, confidence: float = 0.95, *, paired: bool = True
) -> Interval:
    """Geometric mean of A ÷ B with its interval, from a t interval of the log ratio.

    Args:
        a: positive values of A, one a run.
        b: positive values of B; with `paired` as many as in `a`, run i beside run i, so that what
            drifts slowly (heat, neighbours) falls out of the ratio.
        confidence: of the interval.
        paired: False compares independent runs by Welch's t interval of the logs.

    Raises:
        LabError: no values, unequal numbers of paired values, or a value that is not positive.
    """
    log_a, log_b = _logs(a), _logs(b)
    if paired and len(log_a) != len(log_b):
        raise LabError(
            f"成对比较要求两边次数相同，现在是 {len(log_a)} 与 {len(log_b)}",
            remedy="交替运行 A 与 B，每轮各一次",
        )
    logs = (
        mean_interval(log_a - log_b, confidence)
        if paired
        else difference_interval(log_a, log_b, confidence)
    )
    return Interval(
        math.exp(logs.mean), math.exp(logs.low), _exp(logs.high), logs.n, logs.confidence
    )


def difference_interval(a: Values, b: Values, confidence: float = 0.95) -> Interval:
    """Mean of A - mean of B for independent runs, with Welch's t interval.

    Raises:
        LabError: no value on one side, or one is not finite.
    """
    a, b = _finite(a), _finite(b)
    mean, n = float(a.mean() - b.mean()), min(len(a), len(b))
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1, confidence)
    part_a, part_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    variance = float(part_a + part_b)
    if variance == 0:
        return Interval(mean, mean, mean, n, confidence)
    freedom = variance**2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    half = _t(confidence, float(freedom)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, n, confidence)


def slope_interval(values: Values, confidence: float = 0.95) -> Interval:
    """Change per step of a least-squares line through evenly spaced values, with its interval.

    Raises:
        LabError: fewer than three values, or one is not finite.
    """
    data = _finite(values)
    if len(data) < 3:
        raise LabError(f"判断趋势至少要 3 个值，现在是 {len(data)}")
    steps = np.arange(len(data)) - (len(data) - 1) / 2
    spread = float(steps @ steps)
    slope = float(steps @ data) / spread
    rest = data - data.mean() - slope * steps
    error = math.sqrt(float(rest @ rest) / (len(data) - 2) / spread)
    half = _t(confidence, len(data) - 2) * error
    return Interval(slope, slope - half, slope + half, len(data), confidence)


def compare(
    a: Values, b: Values, confidence: float = 0.95, *, paired: bool = True, smallest: float = 0.0
) -> Comparison:
    """A against B: the ratio with its interval, and whether a difference may be claimed."""
    return Comparison(ratio_interval(a, b, confidence, paired=paired), smallest)


def differs(a: Values, b: Values, confidence: float = 0.95, *, paired: bool = True) -> bool:
    """Whether the interval of A ÷ B leaves 1 out."""
    return compare(a, b, confidence, paired=paired).differs


def percentile(values: Values, q: float) -> float:
    """The q-th percentile (0 to 100), linear between order statistics as numpy's default.

    Raises:
        LabError: there is no value, or one is not finite.
    """
    return float(np.percentile(_finite(values), q))


def percentiles(
    values: Values, qs: Sequence[float] = (50.0, 90.0, 95.0, 99.0)
) -> dict[float, float]:
    """Several percentiles at once, by q."""
    return dict(zip(qs, np.percentile(_finite(values), list(qs)).tolist(), strict=True))


def coefficient_of_variation(values: Values) -> float:
    """Standard deviation ÷ mean; 1 for the gaps of a Poisson process."""
    data = _finite(values)
    return float(data.std(ddof=1) / data.mean())


def lag1_autocorrelation(values: Values) -> float:
    """Correlation of each value with the next; about 0 for independent gaps."""
    data = _finite(values)
    centred = data - data.mean()
    return float((centred[:-1] @ centred[1:]) / (centred @ centred))


def _t(confidence: float, freedom: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


def _exp(value: float) -> float:
    return math.inf if value > 709 else math.exp(value)


def _logs(values: Values) -> np.ndarray:
    data = _finite(values)
    if (data <= 0).any():
        raise LabError(f"比值要求测量值为正，出现了 {float(data.min()):g}")
    return np.log(data)


def _finite(values: Values) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise LabError("没有可统计的测量值", remedy="先看失败请求的原因，再重新测量")
    if not np.isfinite(data).all():
        raise LabError("测量值中有 NaN 或无穷大", remedy="先剔除失败的测量")
    return data
