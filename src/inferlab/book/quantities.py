"""The named quantities a claim may ask for: small functions from records to a mean with its
interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.book.chapter03 import known_shape
from inferlab.errors import LabError
from inferlab.measure.statistics import Interval, mean_interval, ratio_interval
from inferlab.records import store
from inferlab.records.goodput_ab import CAPACITY, OpenEnds
from inferlab.records.rooflines import LayerPoint, layer_points
from inferlab.records.schema import Figure, Record

Where = Mapping[str, Any]


@dataclass
class Records:
    """One device's records of one lab; remembers those that were read.

    Args:
        folder: `results/<device>`.
        lab: its folder below that, which may be nested (`chapter07/pd`).
    """

    folder: Path
    lab: str
    used: dict[Path, Record] = field(default_factory=dict)

    def read(self, experiment: str) -> Record:
        """One record.

        Raises:
            LabError: there is none, or it is damaged.
        """
        path = self.folder / self.lab / f"{experiment}.json"
        if path not in self.used:
            if not path.is_file():
                command = f"./lab record {self.lab} --only {experiment}"
                raise LabError(f"没有 {experiment} 的记录", remedy=command)
            self.used[path] = store.load(path)
        return self.used[path]

    def figure(self, experiment: str, name: str, labels: Where) -> Figure:
        """The one figure of that name and those labels.

        Raises:
            LabError: there is none, or there are several.
        """
        try:
            return self.read(experiment).one(name, **labels)
        except KeyError:
            shown = "，".join(f"{key}={value}" for key, value in labels.items())
            raise LabError(f"{experiment} 记录里没有唯一的 {name}（{shown}）") from None


def compute_share(records: Records, where: Where) -> Interval:
    """Achieved FLOP/s of one part of a layer ÷ the best measured matrix product (bf16)."""
    figure, point = _layer(records, where)
    products = records.read("ceilings").select("matmul", dtype="bf16")
    return _share(point.work.flops, figure, max(products, key=lambda f: f.mean))


def bandwidth_share(records: Records, where: Where) -> Interval:
    """Bytes that a part of a layer must move per second ÷ the fastest measured large copy."""
    figure, point = _layer(records, where)
    copies = records.read("ceilings").select("device_copy")
    return _share(point.work.bytes, figure, max(copies, key=lambda f: f.labels["mib"]))


def compute_over_bandwidth(records: Records, where: Where) -> Interval:
    """Time at the compute ceiling ÷ time at the bandwidth ceiling: above 1 compute is the limit.

    The layer's own time falls out, so the interval is that of the two ceilings.
    """
    _, point = _layer(records, where)
    ceilings = records.read("ceilings")
    product = max(ceilings.select("matmul", dtype="bf16"), key=lambda f: f.mean)
    copy = max(ceilings.select("device_copy"), key=lambda f: f.labels["mib"])
    seconds = [point.work.flops / value for value in product.values]
    return ratio_interval(
        seconds, [point.work.bytes / value for value in copy.values], paired=False
    )


def figure_value(records: Records, where: Where) -> Interval:
    """A figure as it stands: `experiment`, `name`, and the labels that select it."""
    found = mean_interval(_figure(records, where).values)
    return _open_ends(records, where).opened(found)


def figure_ratio(records: Records, where: Where) -> Interval:
    """One figure ÷ another of the same `name`: what differs stands under `over` and `under`.

    Either may name its own `experiment`. Repeats of one record are paired, of two they are not.
    Where a goodput is a bound only, that end of the interval is open.
    """
    common = {key: value for key, value in where.items() if key not in ("over", "under")}
    over, under = ({**common, **where[side]} for side in ("over", "under"))
    paired = over["experiment"] == under["experiment"]
    above, below = _figure(records, over).values, _figure(records, under).values
    ends = _open_ends(records, over).over(_open_ends(records, under))
    return ends.opened(ratio_interval(above, below, paired=paired))


def figure_gap(records: Records, where: Where) -> Interval:
    """How many times the larger is the smaller, whichever that is: 1 or more. As `figure_ratio`."""
    found = figure_ratio(records, where)
    turned = Interval(
        _inverse(found.mean), _inverse(found.high), _inverse(found.low), found.n, found.confidence
    )
    larger, other = (found, turned) if found.mean >= 1 else (turned, found)
    if larger.low >= 1:
        return larger
    return replace(larger, low=1.0, high=max(larger.high, other.high))


def _inverse(value: float) -> float:
    return 1 / value if value else inf


def _open_ends(records: Records, where: Where) -> OpenEnds:
    if where["name"] != CAPACITY:
        return OpenEnds()
    return OpenEnds.of(records.read(where["experiment"]), where["side"])


def _figure(records: Records, where: Where) -> Figure:
    labels = {key: value for key, value in where.items() if key not in ("experiment", "name")}
    return records.figure(where["experiment"], where["name"], labels)


def _share(work: float, time: Figure, ceiling: Figure) -> Interval:
    """Work ÷ time ÷ ceiling, by Welch's interval of the logs: the two were measured apart."""
    return ratio_interval([work / seconds for seconds in time.values], ceiling.values, paired=False)


def _layer(records: Records, where: Where) -> tuple[Figure, LayerPoint]:
    figure = records.figure("layer", "layer_time", where)
    record = records.read("layer").model_copy(update={"figures": [figure]})
    return figure, layer_points(record, _shape(record))[0]


def _shape(record: Record) -> ModelShape:
    name = record.model.name.partition("（")[0] if record.model else ""
    try:
        return known_shape(name)
    except (LabError, OSError):
        raise LabError(f"models/configs 里没有 {name!r} 的形状") from None


@dataclass(frozen=True)
class Quantity:
    """A function with its name for the reader; unit `%` shows a share as per cent."""

    label: str
    compute: Callable[[Records, Where], Interval]
    unit: str = ""


QUANTITIES = {
    "compute_share": Quantity("达到的算力 ÷ 实测算力上限", compute_share, "%"),
    "bandwidth_share": Quantity("达到的带宽 ÷ 实测带宽上限", bandwidth_share, "%"),
    "compute_over_bandwidth": Quantity("算力时间 ÷ 带宽时间", compute_over_bandwidth),
    "figure": Quantity("记录中的数", figure_value),
    "ratio": Quantity("记录中两个数之比", figure_ratio),
    "gap": Quantity("记录中两个数相差的倍数，大 ÷ 小", figure_gap),
}
