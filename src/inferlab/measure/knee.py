"""The batch from which a decode step grows faster: two straight lines that meet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from inferlab.errors import LabError

FEWEST_POINTS = 6
CONFIDENCE = 0.95
_CANDIDATES = 1_000
_PARAMETERS = 4  # base, two slopes, the knee


@dataclass(frozen=True)
class Knee:
    """Step time in ms as `base + slope · batch`, and `steeper` more a sequence beyond the knee.

    Attributes:
        batch: where the lines meet, in sequences.
        base_ms: the first line at batch 0.
        slope_ms: what a sequence adds before the knee.
        steeper_ms: what it adds beyond, on top of that.
        error: largest distance of a point from the lines, relative to the point.
    """

    batch: float
    base_ms: float
    slope_ms: float
    steeper_ms: float
    error: float

    def step_ms(self, batch: np.ndarray) -> np.ndarray:
        """The lines at any batch (same shape)."""
        beyond = np.maximum(0, batch - self.batch)
        return self.base_ms + self.slope_ms * batch + self.steeper_ms * beyond


def find_knee(batches: Sequence[float], step_ms: Sequence[float]) -> Knee:
    """Least squares of relative errors over all places of the knee between the points.

    Args:
        batches: sequences in a step, ascending, shape (n,).
        step_ms: measured times, shape (n,).

    Raises:
        LabError: fewer than six points, or two lines are not surely better than one (F test), or
            the second is not the steeper.
    """
    x, y = np.asarray(batches, float), np.asarray(step_ms, float)
    if len(x) < FEWEST_POINTS:
        raise LabError(f"只有 {len(x)} 个 batch，定不出拐点",
                       remedy=f"至少测 {FEWEST_POINTS} 个 batch")  # fmt: skip
    # Two points at least on either side: a line through one is no line.
    places = np.linspace(x[1], x[-2], _CANDIDATES)
    found, left = min((_lines(x, y, place) for place in places), key=lambda each: each[1])
    straight = _straight(x, y)
    # Errors near the arithmetic's own precision are no evidence of a bend.
    if found.steeper_ms <= 0 or straight < len(x) * 1e-18 or not _surely(straight, left, len(x)):
        raise LabError("一步的时间没有越来越陡，定不出拐点", remedy="测到更大的 batch")
    return found


def knee_range(batches: Sequence[float], step_ms: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest knee when any one batch is left out: how far it hangs on one point.

    Batches without which there is no sure knee are passed over. Arguments as `find_knee`.

    Raises:
        LabError: as `find_knee` of all points.
    """
    found = [find_knee(batches, step_ms).batch]
    for left_out in range(len(batches)):
        kept = [i for i in range(len(batches)) if i != left_out]
        try:
            found.append(find_knee([batches[i] for i in kept], [step_ms[i] for i in kept]).batch)
        except LabError:
            continue
    return min(found), max(found)


def _surely(straight: float, bent: float, points: int) -> bool:
    """Whether two lines with their knee explain more than chance would (sums of squares)."""
    freedom = points - _PARAMETERS
    gain = (straight - bent) / (_PARAMETERS - 2)
    return bool(gain > stats.f.ppf(CONFIDENCE, _PARAMETERS - 2, freedom) * bent / freedom)


def _straight(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of squares that one line leaves."""
    _, off = _fitted(np.stack([np.ones_like(x), x], axis=1), y)
    return float(off @ off)


def _lines(x: np.ndarray, y: np.ndarray, place: float) -> tuple[Knee, float]:
    """Two lines that meet at a place, and the sum of squares that they leave."""
    found, off = _fitted(np.stack([np.ones_like(x), x, np.maximum(0, x - place)], axis=1), y)
    base, slope, steeper = (float(each) for each in found)
    return Knee(float(place), base, slope, steeper, float(np.abs(off).max())), float(off @ off)


def _fitted(columns: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of least relative squares, and each point's relative error."""
    relative = columns / y[:, None]
    found, *_ = np.linalg.lstsq(relative, np.ones_like(y), rcond=None)
    return found, relative @ found - 1
