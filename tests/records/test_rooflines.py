"""Records against ceilings and arithmetic, on the recorded H200."""

import pytest

from inferlab.arithmetic.shapes import ModelShape
from inferlab.hardware.timing import Series
from inferlab.records import store
from inferlab.records.rooflines import (
    datasheet_ceilings,
    describe,
    layer_points,
    measured_ceilings,
)
from inferlab.records.schema import Figure
from inferlab.repository import root


@pytest.fixture(scope="module")
def ceilings():
    return store.find("chapter03", "ceilings", "h200")


@pytest.fixture(scope="module")
def points():
    shape = ModelShape.from_config(root() / "models" / "configs" / "qwen3-8b.json")
    return layer_points(store.find("chapter03", "layer", "NVIDIA H200"), shape)


def test_what_was_measured_stays_below_the_datasheet(ceilings):
    for dtype in ("bf16", "fp8"):
        found, sheet = measured_ceilings(ceilings, dtype), datasheet_ceilings(ceilings, dtype)
        assert 0.5 < found.flops_per_s / sheet.flops_per_s < 1
        assert 0.8 < found.bytes_per_s / sheet.bytes_per_s < 1


def test_the_bandwidth_ceiling_is_not_a_copy_within_the_cache(ceilings):
    inside = ceilings.one("device_copy", mib=16).mean
    assert inside > measured_ceilings(ceilings).bytes_per_s


def test_a_whole_layer_takes_at_least_its_parts_floor(points):
    roofs = measured_ceilings(store.find("chapter03", "ceilings", "h200"))
    whole = [point for point in points if point.part == "layer"]
    assert len(whole) == 26
    assert all(0.5 < point.share(roofs) < 1.05 for point in whole)


def test_prefill_is_bound_by_compute_and_decode_by_memory(points):
    roofs = measured_ceilings(store.find("chapter03", "ceilings", "h200"))
    whole = {(p.phase, p.size): p for p in points if p.part == "layer" and p.context <= 1024}
    assert whole["prefill", 8192].work.against(roofs).bound == "compute"
    assert whole["decode", 64].work.against(roofs).bound == "memory"
    assert whole["decode", 1].seconds == pytest.approx(whole["decode", 8].seconds, rel=0.05)


def test_intervals_hold_the_mean_and_every_record_names_its_origin(ceilings):
    for figure in ceilings.figures:
        assert figure.low <= figure.mean <= figure.high
        assert len(figure.values) == ceilings.repeats == 5
    assert ceilings.software.git_commit and "580" in describe(ceilings)


def test_records_that_differ_are_described_together(ceilings):
    later = ceilings.model_copy(update={"repeats": 3, "created": "2026-12-01T10:00:00+00:00"})
    line, both = describe(ceilings), describe(ceilings, later)
    assert describe(ceilings, ceilings) == line
    assert "重复 5、3 次" in both and f"{ceilings.created[:10]}、2026-12-01" in both
    assert both.startswith("NVIDIA H200，驱动 580.") and both.count("commit") == 1


def test_a_single_value_bounds_nothing():
    figure = Figure.from_series(Series("matmul", "flop/s", [2.0], {}))
    assert (figure.low, figure.mean, figure.high) == (2.0, 2.0, 2.0)


def test_a_layer_is_held_against_the_dtype_that_it_was_measured_in(points):
    shape = ModelShape.from_config(root() / "models" / "configs" / "qwen3-8b.json")
    record = store.find("chapter03", "layer", "NVIDIA H200")
    assert record.model
    wide = record.model_copy(update={"model": record.model.model_copy(update={"dtype": "fp32"})})
    for narrow, wider in zip(points, layer_points(wide, shape), strict=True):
        assert wider.work.flops == narrow.work.flops
        assert wider.work.bytes == 2 * narrow.work.bytes
