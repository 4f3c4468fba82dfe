"""Set a record's figures against ceilings and arithmetic: what share of the limit was reached."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from inferlab.arithmetic.roofline import Step, Work, layer_work
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.hardware.catalog import Dtype, find_gpu
from inferlab.records.schema import Figure, Record

WEIGHTS = {"random": "随机权重", "real": "真实权重", "unknown": "权重是否真实未知"}
PARTS = ("projections", "attention", "mlp", "layer")


@dataclass(frozen=True)
class LayerPoint:
    """One part of one layer under one condition, measured and predicted.

    Attributes:
        phase: `prefill` or `decode`.
        part: one of `PARTS`.
        size: prompt tokens in prefill, batch in decode.
        context: cached tokens a sequence; 0 in prefill.
        work: FLOPs and bytes by arithmetic.
        seconds, low_s, high_s: measured mean and its 95 % interval.
    """

    phase: str
    part: str
    size: int
    context: int
    work: Work
    seconds: float
    low_s: float
    high_s: float

    @property
    def flops_per_s(self) -> float:
        return self.work.flops / self.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.work.bytes / self.seconds

    def share(self, ceilings: Ceilings) -> float:
        """Roofline time ÷ measured time: 1 is the limit."""
        return self.work.against(ceilings).floor_s / self.seconds


def measured_ceilings(record: Record, dtype: str = "bf16") -> Ceilings:
    """The best matrix product of a dtype and the fastest copy beyond the cache, from a `ceilings`
    record.

    The copy of the largest size counts: smaller ones may lie in the last-level cache.
    """
    products = [figure.mean for figure in record.select("matmul", dtype=dtype)]
    copies = record.select("device_copy")
    return Ceilings(max(products), max(copies, key=lambda f: f.labels["mib"]).mean)


def datasheet_ceilings(record: Record, dtype: Dtype = "bf16") -> Ceilings | None:
    """The datasheet's dense peak and bandwidth of the record's GPU; None for a CPU or an unknown
    GPU."""
    spec = find_gpu(record.device)
    return Ceilings(spec.peak(dtype), spec.memory_bytes_per_s) if spec else None


def layer_points(record: Record, shape: ModelShape) -> list[LayerPoint]:
    """All points of a `layer` record, in the order measured; the shape is taken in the record's
    dtype."""
    return list(_points(record, shape.computed_in(computed_dtype(record))))


def computed_dtype(record: Record) -> Dtype:
    """The dtype that a `layer` record was measured in."""
    return cast(Dtype, record.model.dtype if record.model else "bf16")


def _points(record: Record, shape: ModelShape) -> Iterator[LayerPoint]:
    layer = shape.layers[0]
    for figure in record.select("layer_time"):
        labels = figure.labels
        decode = labels["phase"] == "decode"
        context = labels.get("context", 0)
        step = Step(labels["batch"], 1 if decode else labels["tokens"], context, decode)
        work = layer_work(shape, layer, step)
        part = {"projections": work.projections, "attention": work.attention, "mlp": work.mlp,
                "layer": work.total}[labels["part"]]  # fmt: skip
        size = labels["batch"] if decode else labels["tokens"]
        yield LayerPoint(labels["phase"], labels["part"], size, context, part,
                         figure.mean, figure.low, figure.high)  # fmt: skip


def describe(*records: Record) -> str:
    """One line for the foot of a picture of these records: device, driver, software, repeats, date,
    commit; where they differ, each one's."""
    parts: tuple[tuple[str, Callable[[Record], str | None]], ...] = (
        ("{}", lambda record: record.device),
        ("驱动 {}", lambda record: record.host.driver_version if record.host else None),
        ("{}", _engine),
        ("{}", lambda record: WEIGHTS.get(record.model.weights) if record.model else None),
        ("重复 {} 次", lambda record: str(record.repeats)),
        ("{}", lambda record: record.created[:10]),
        ("commit {}", lambda record: (record.software.git_commit or "")[:7]),
    )
    told = ((form, dict.fromkeys(filter(None, map(of, records)))) for form, of in parts)
    return "，".join(form.format("、".join(values)) for form, values in told if values)


def _engine(record: Record) -> str | None:
    found, software = record.engine, record.software
    named = f"{found.name} {found.version or ''}".strip() if found else software.engine
    return named or (f"torch {software.torch}" if software.torch else None)


def interval(figure: Figure) -> str:
    """`mean ± half-width`, in the figure's own unit."""
    return f"{figure.mean:.4g} ± {(figure.high - figure.low) / 2:.2g} {figure.unit}"
