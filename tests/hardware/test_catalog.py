"""The datasheet table: golden figures, conventions, names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.errors import UsageError
from inferlab.hardware.catalog import GpuSpec, catalog, find_gpu

SPECS = pytest.mark.parametrize("spec", catalog(), ids=lambda spec: spec.name)


def known(name: str) -> GpuSpec:
    spec = find_gpu(name)
    assert spec is not None, name
    return spec


def test_holds_enough_gpus_and_those_sold_in_china():
    assert len(catalog()) >= 24
    chinese = {spec.name for spec in catalog() if spec.made_for_china}
    assert chinese >= {"A800 SXM4 80GB", "H800 SXM", "H20", "L20", "RTX 4090 D", "RTX 5090 D"}


@pytest.mark.parametrize(
    ("name", "dtype", "flops_per_s"),
    [
        ("NVIDIA H200", "bf16", 989.4e12),
        ("NVIDIA H200", "fp8", 1978.9e12),
        ("NVIDIA H100 80GB HBM3", "fp16", 989.4e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "int8", 624e12),
        ("NVIDIA H20", "fp8", 296e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA GeForce RTX 4090", "fp16", 165.2e12),
        ("NVIDIA B200", "fp4", 9e15),
        ("Tesla T4", "fp16", 65e12),
    ],
)
def test_dense_peaks_match_the_datasheets(name: str, dtype, flops_per_s: float):
    assert known(name).peak(dtype) == pytest.approx(flops_per_s)


@pytest.mark.parametrize(
    ("name", "bytes_per_s"),
    [
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA A100-SXM4-80GB", 2.039e12),
        ("NVIDIA H20", 4.0e12),
        ("NVIDIA GeForce RTX 4090", 1.008e12),
    ],
)
def test_memory_bandwidth_matches_the_datasheets(name: str, bytes_per_s: float):
    assert known(name).memory_bytes_per_s == pytest.approx(bytes_per_s)


def test_ridge_of_h200_is_206_flop_per_byte():
    assert known("NVIDIA H200").ridge("bf16") == pytest.approx(206.1, abs=0.1)


def test_h20_decodes_as_fast_as_h100_but_has_a_seventh_of_its_ridge():
    h20, h100 = known("NVIDIA H20"), known("NVIDIA H100 80GB HBM3")
    assert h20.memory_bytes_per_s > h100.memory_bytes_per_s
    assert h20.ridge("bf16") < h100.ridge("bf16") / 7


@SPECS
def test_every_gpu_names_its_sources_and_its_place_in_the_chinese_market(spec: GpuSpec):
    assert all(source.title and "/" in source.page for source in spec.sources)
    assert spec.china_note


@SPECS
def test_no_sparse_figure_is_printed_as_dense(spec: GpuSpec):
    for dtype, sparse in spec.sparse_flops_per_s.items():
        ratio = sparse / spec.dense_flops_per_s[dtype]
        # B300's fp4 gains only a third from sparsity; its datasheet prints both.
        assert ratio == pytest.approx(
            4 / 3 if spec.name == "B300" and dtype == "fp4" else 2, rel=0.02
        )
    if spec.datasheet_prints != "dense":
        assert spec.sparse_flops_per_s


@SPECS
def test_narrower_types_are_never_slower(spec: GpuSpec):
    order = [d for d in ("tf32", "bf16", "fp8", "fp4") if d in spec.dense_flops_per_s]
    peaks = [spec.dense_flops_per_s[dtype] for dtype in order]
    assert peaks == sorted(peaks)
    assert spec.dense_flops_per_s["fp32"] <= max(spec.dense_flops_per_s.values())


@SPECS
def test_figures_are_in_base_units(spec: GpuSpec):
    assert 1e11 < spec.memory_bytes_per_s < 1e13
    assert all(1e11 < peak < 3e16 for peak in spec.dense_flops_per_s.values())
    assert 1e10 < spec.pcie_bytes_per_s < 2e11
    assert spec.nvlink_bytes_per_s is None or 5e10 < spec.nvlink_bytes_per_s <= 9e11


def test_names_lead_to_one_gpu_each():
    for spec in catalog():
        assert all(find_gpu(name) is spec for name in (spec.name, *spec.aliases))


def test_a_longer_name_is_another_product():
    assert known("NVIDIA H200 NVL").power_w < known("NVIDIA H200").power_w
    assert known("NVIDIA GeForce RTX 4090 D").made_for_china
    assert find_gpu("NVIDIA H200 XYZ") is None


@given(st.sampled_from(catalog()), st.sampled_from([str.upper, str.lower, str.title]))
def test_case_and_separators_do_not_matter(spec: GpuSpec, change):
    assert find_gpu(change(spec.aliases[0]).replace("-", " ")) is spec


def test_an_unpublished_peak_is_an_error_that_names_the_others():
    with pytest.raises(UsageError, match="fp32、fp4"):
        known("NVIDIA GeForce RTX 5090 D").ridge("bf16")


def test_pcie_counts_one_direction_after_coding():
    assert known("NVIDIA H200").pcie_bytes_per_s == pytest.approx(63.0e9, rel=0.001)
