"""One decoder layer on the roofline, from a `layer` record."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from inferlab.arithmetic.shapes import ModelShape
from inferlab.plots.roofline import Dot, roofline, share_of_limit
from inferlab.records.rooflines import (
    LayerPoint,
    computed_dtype,
    datasheet_ceilings,
    describe,
    layer_points,
    measured_ceilings,
)
from inferlab.records.schema import Record

PART_NAMES = {"mlp": "MLP", "attention": "attention", "projections": "QKV/O 投影", "layer": "整层"}


def layer_roofline(layer: Record, ceilings: Record, shape: ModelShape) -> Figure:
    """Decode's MLP and attention over batch, and the whole layer in prefill, under both roofs."""
    points, dtype = layer_points(layer, shape), computed_dtype(layer)
    context = min(point.context for point in points if point.phase == "decode")
    decode = [p for p in points if p.phase == "decode" and p.context == context]
    dots = [
        *_dots(decode, "mlp", "decode MLP（旁注：batch）"),
        *_dots(decode, "attention", f"decode attention（上下文 {context:,}）", least_label=1 << 30),
        *_dots(
            [p for p in points if p.phase == "prefill"],
            "layer",
            "prefill 整层（旁注：长度）",
            least_label=1024,
        ),
    ]
    return roofline(
        dots,
        measured_ceilings(ceilings, dtype),
        datasheet_ceilings(ceilings, dtype),
        title=f"一层 decoder 在 roofline 上的位置（{dtype}）",
        note=describe(layer),
    )


def _dots(
    points: Sequence[LayerPoint], part: str, group: str, *, least_label: int = 1
) -> list[Dot]:
    """Dots of one part; only sizes from `least_label` on carry their number."""

    def label(size: int) -> str:
        return f"{size:,}" if size >= least_label else ""

    chosen = [point for point in points if point.part == part]
    return [Dot(group, p.work.intensity, p.flops_per_s, label(p.size)) for p in chosen]


def layer_shares(layer: Record, ceilings: Record, shape: ModelShape, phase: str) -> Figure:
    """Roofline time ÷ measured time of each part, over batch or prompt length."""
    roofs = measured_ceilings(ceilings, computed_dtype(layer))
    points = [p for p in layer_points(layer, shape) if p.phase == phase]
    context = min(point.context for point in points)
    groups = {
        name: [(p.size, p.share(roofs)) for p in points if p.part == part and p.context == context]
        for part, name in PART_NAMES.items()
    }
    decode = phase == "decode"
    return share_of_limit(
        groups,
        x_label="batch" if decode else "prompt 长度（token）",
        title=f"{phase}：离上限多远" + (f"（上下文 {context:,}）" if decode else ""),
        note=describe(layer),
    )
