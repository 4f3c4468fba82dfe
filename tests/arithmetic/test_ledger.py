"""The memory ledger: rows that add up, and what happens when they do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferlab.arithmetic.ledger import GIB, memory_ledger
from inferlab.arithmetic.parameters import weight_bytes
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root

CONFIGS = root() / "models" / "configs"


def shape_of(name: str) -> ModelShape:
    return ModelShape.from_config(CONFIGS / f"{name}.json")


def test_qwen3_8b_on_an_h200() -> None:
    shape = shape_of("qwen3-8b")
    ledger = memory_ledger(shape, memory_bytes=141 * 10**9, max_model_len=40_960)
    assert [row.key for row in ledger.rows] == [
        "weights",
        "kv_cache",
        "activations",
        "runtime",
        "free",
    ]
    assert sum(row.bytes for row in ledger.rows) == 141 * 10**9
    assert ledger.row("weights").bytes == weight_bytes(shape)
    assert ledger.row("free").gib == pytest.approx(141e9 * 0.08 / GIB, rel=1e-6)
    assert ledger.fits
    assert ledger.capacity.tokens > 700_000


def test_each_row_says_how_it_was_found_and_whether_it_is_exact() -> None:
    ledger = memory_ledger(shape_of("gpt-oss-20b"), memory_bytes=24 * GIB, max_model_len=8192)
    assert {row.key: row.exact for row in ledger.rows} == {
        "weights": True,
        "kv_cache": False,
        "activations": False,
        "runtime": False,
        "free": True,
    }
    assert "20,914,757,184" in ledger.row("weights").formula
    assert "滑窗" in ledger.row("kv_cache").formula


def test_what_the_engine_reported_replaces_the_estimates() -> None:
    reported = {"weights": 16 * GIB, "activations": 2 * GIB, "runtime": GIB}
    ledger = memory_ledger(
        shape_of("qwen3-8b"),
        memory_bytes=80 * GIB,
        max_model_len=8192,
        utilization=0.9,
        measured=reported,
    )
    assert ledger.row("kv_cache").bytes == (72 - 19) * GIB
    assert all(row.exact for row in ledger.rows)


def test_a_fixed_cache_leaves_the_rest_free() -> None:
    ledger = memory_ledger(
        shape_of("qwen3-0.6b"),
        memory_bytes=16 * GIB,
        max_model_len=2048,
        device="cpu",
        kv_cache_bytes=GIB,
    )
    assert ledger.row("kv_cache").bytes == GIB
    assert ledger.row("kv_cache").exact
    assert sum(row.bytes for row in ledger.rows) == 16 * GIB
    assert ledger.capacity.block_size == 128


@pytest.mark.parametrize(("gib", "shortfall"), [(16, True), (20, False)])
def test_what_does_not_fit_is_said_in_bytes(gib: int, shortfall: bool) -> None:
    ledger = memory_ledger(shape_of("qwen3-8b"), memory_bytes=gib * GIB, max_model_len=8192)
    assert (ledger.shortfall_bytes > 0) == shortfall
    assert not ledger.fits, "16 GiB lack room for the weights, 20 GiB for one request"


@given(
    memory=st.integers(1, 200),
    utilization=st.floats(0.05, 1.0),
    name=st.sampled_from(["qwen3-8b", "gemma-3-27b", "granite-4.0-h-tiny", "deepseek-v2-lite"]),
)
def test_rows_add_up_or_the_shortfall_is_named(memory: int, utilization: float, name: str) -> None:
    ledger = memory_ledger(
        shape_of(name), memory_bytes=memory * GIB, max_model_len=4096, utilization=utilization
    )
    if ledger.shortfall_bytes == 0:
        assert sum(row.bytes for row in ledger.rows) == memory * GIB
    else:
        assert ledger.row("kv_cache").bytes == 0
    assert all(row.bytes >= 0 for row in ledger.rows)


@pytest.mark.parametrize(("memory", "utilization"), [(0, 0.9), (GIB, 0.0), (GIB, 1.1)])
def test_senseless_arguments_are_refused(memory: int, utilization: float) -> None:
    with pytest.raises(LabError, match="不成立"):
        memory_ledger(
            shape_of("gpt2"), memory_bytes=memory, max_model_len=10, utilization=utilization
        )


# What vLLM 0.32.0 said on an H200 that shows 139.80 GiB to programs (results/h200/chapter05).
@pytest.mark.parametrize(
    ("max_num_seqs", "max_model_len", "tokens"),
    [(1024, 40_960, 802_896), (8, 8192, 813_584)],
)
def test_an_h200s_kv_cache_is_predicted_within_one_per_cent(
    max_num_seqs: int, max_model_len: int, tokens: int
) -> None:
    ledger = memory_ledger(
        shape_of("qwen3-8b"),
        memory_bytes=round(139.80 * GIB),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
    )
    assert ledger.capacity.tokens == pytest.approx(tokens, rel=0.01)
