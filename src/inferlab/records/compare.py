"""Two records side by side: the ratio of each figure that both have, and what makes it doubtful."""

from dataclasses import dataclass

from inferlab.errors import LabError
from inferlab.records.ab import compared
from inferlab.records.schema import Comparison, Figure, Record


@dataclass(frozen=True)
class Pair:
    """One figure in both records; `comparison` is None where a repeat is missing or a value 0."""

    a: Figure
    b: Figure
    comparison: Comparison | None


@dataclass(frozen=True)
class Compared:
    """All common figures, and the caveats in the reader's language."""

    pairs: list[Pair]
    caveats: list[str]


def compare_records(a: Record, b: Record, confidence: float = 0.95) -> Compared:
    """B ÷ A of every figure that both have under the same condition.

    The runs were not interleaved, so the intervals (Welch's, of the logs) know nothing of what
    drifted between the records: `./lab ab` does.

    Raises:
        LabError: they share no figure.
    """
    theirs = {_key(figure): figure for figure in b.figures}
    common = [(figure, theirs[_key(figure)]) for figure in a.figures if _key(figure) in theirs]
    if not common:
        raise LabError("两份记录没有相同条件下的同名指标", remedy="用相同的负载重新测量其中一份")
    each = 1 - (1 - confidence) / len(common)
    return Compared([Pair(x, y, _comparison(x, y, each)) for x, y in common], _caveats(a, b))


def _comparison(a: Figure, b: Figure, confidence: float) -> Comparison | None:
    if min(len(a.values), len(b.values)) < 2 or min(*a.values, *b.values) <= 0:
        return None
    return compared(a.name, a.values, b.values, confidence, paired=False)


def _caveats(a: Record, b: Record) -> list[str]:
    def differ(what: str, x: object, y: object) -> list[str]:
        return [f"{what}不同：{x} 与 {y}"] if x != y else []

    found = differ("设备", a.device, b.device)
    found += differ("模型", a.model and a.model.name, b.model and b.model.name)
    found += differ("引擎版本", a.engine and a.engine.version, b.engine and b.engine.version)
    for name in ("workload", "latency_from", "window", "tool"):
        x, y = a.parameters.get(name), b.parameters.get(name)
        found += differ(f"参数 {name} ", x, y) if x != y else []
    found += [f"{side} 不完整：{r.partial}" for side, r in (("A", a), ("B", b)) if r.partial]
    return found


def _key(figure: Figure) -> tuple[str, str]:
    return figure.name, repr(sorted(figure.labels.items()))
