"""FLOPs and bytes of a step, checked by hand where it is easy and by properties elsewhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferlab.arithmetic.matrices import Matrix
from inferlab.arithmetic.parameters import count_parameters, weight_bytes
from inferlab.arithmetic.roofline import (
    Ceilings,
    Step,
    decode,
    layer_work,
    linear_ridge_tokens,
    prefill,
    ridge_batch,
)
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root

CONFIGS = root() / "models" / "configs"
H200 = Ceilings(flops_per_s=989e12, bytes_per_s=4.8e12)
NAMES = [
    "qwen3-8b",
    "gemma-3-1b",
    "deepseek-v2-lite",
    "qwen3-30b-a3b",
    "qwen3-next-80b-a3b",
    "gpt2",
]


def shape_of(name: str) -> ModelShape:
    return ModelShape.from_config(CONFIGS / f"{name}.json")


def test_decode_reads_all_weights_but_the_input_embedding() -> None:
    """One H200 stream of Qwen3-8B: 15.1 GB a token, 3.15 ms at the datasheet's 4.8 TB/s."""
    shape = shape_of("qwen3-8b")
    count = count_parameters(shape)
    work = decode(shape, 1, 0).total
    norms = 36 * 2 * 4096 + 4096
    assert work.weight_bytes == 2 * (count.total - count.embedding - norms)
    assert work.against(H200).memory_s == pytest.approx(3.15e-3, rel=0.01)
    assert work.against(H200).bound == "memory"


def test_linear_flops_are_two_a_weight_and_token() -> None:
    shape = shape_of("llama-3.1-8b")
    weights = 32 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14336)
    assert prefill(shape, 2, 100).linear.flops == 2 * weights * 200
    assert decode(shape, 3, 50).head.flops == 2 * 4096 * 128256 * 3


def test_attention_of_a_causal_prefill_counts_the_lower_triangle() -> None:
    shape = shape_of("llama-3.1-8b")
    pairs = 1000 * 1001 / 2
    assert prefill(shape, 1, 1000).attention.flops == 32 * 4 * 32 * 128 * pairs
    assert decode(shape, 1, 999).attention.flops == 32 * 4 * 32 * 128 * 1000


def test_a_window_bounds_what_is_read() -> None:
    shape = shape_of("mistral-7b-v0.1")
    near, far = decode(shape, 1, 5000).attention, decode(shape, 1, 30_000).attention
    assert near == far
    assert near.cache_bytes == 32 * (4096 + 1) * 4096


def test_prefix_hits_leave_exactly_the_rest_of_the_triangle() -> None:
    for name in ("qwen3-8b", "mistral-7b-v0.1"):
        shape = shape_of(name)
        first, rest = prefill(shape, 1, 6000), prefill(shape, 1, 10_000, cached=6000)
        whole = prefill(shape, 1, 10_000)
        assert first.attention.flops + rest.attention.flops == whole.attention.flops
        assert first.linear.flops + rest.linear.flops == whole.linear.flops


def test_mla_decodes_in_the_latent_space() -> None:
    """A token's cache is 576 elements a layer, but each of 16 heads scores and sums over it."""
    work = decode(shape_of("deepseek-v2-lite"), 1, 999).attention
    assert work.cache_bytes == 27 * 1001 * 576 * 2
    assert work.flops == 27 * 2 * 16 * (576 + 512) * 1000


def test_one_layer_is_attention_half_plus_mlp_half() -> None:
    shape = shape_of("qwen3-8b")
    step = Step(batch=16, new_tokens=1, cached=2048, decode=True)
    layer = layer_work(shape, shape.layers[0], step)
    assert layer.mlp.weight_bytes == 3 * 4096 * 12288 * 2
    assert layer.projections.weight_bytes == (4096 * 6144 + 4096 * 4096) * 2
    assert layer.attention.cache_bytes == 16 * 2050 * 2 * 8 * 128 * 2
    assert layer.total.flops == layer.mixer.flops + layer.mlp.flops
    assert decode(shape, 16, 2048).layers.total.flops == 36 * layer.total.flops


def test_experts_touched_follow_the_batch() -> None:
    """Qwen3-30B-A3B, top 8 of 128: one token reads 8 experts, 64 tokens about 126."""
    matrix = Matrix("experts", 10, 10, copies=128, used=8)
    assert matrix.expected_copies(1) == pytest.approx(8)
    assert matrix.expected_copies(64) == pytest.approx(128 * (1 - (120 / 128) ** 64))
    assert matrix.expected_copies(10_000) == pytest.approx(128)


def test_ridge() -> None:
    assert H200.ridge == pytest.approx(206, rel=1e-3)
    assert ridge_batch(H200) == pytest.approx(206, rel=1e-3)
    assert ridge_batch(H200, 1.0) == pytest.approx(103, rel=1e-3)
    shape = shape_of("qwen3-8b")
    tokens = linear_ridge_tokens(shape, H200)
    assert tokens is not None
    assert tokens > ridge_batch(H200), "activations push the ridge to the right"
    assert decode(shape, tokens, 0).linear.against(H200).bound == "compute"
    assert decode(shape, tokens - 1, 0).linear.against(H200).bound == "memory"
    assert linear_ridge_tokens(shape, Ceilings(1e18, 1e9)) is None


def test_roofline_point() -> None:
    point = prefill(shape_of("qwen3-8b"), 1, 4096).total.against(H200)
    assert point.bound == "compute"
    assert point.floor_s == point.compute_s > point.memory_s
    assert point.attainable_flops_per_s == pytest.approx(H200.flops_per_s)
    assert point.intensity > H200.ridge


def test_quantized_weights_and_cache_move_fewer_bytes() -> None:
    shape = shape_of("qwen3-8b")
    bf16 = decode(shape, 8, 4096).total
    assert decode(shape, 8, 4096, weight_dtype="fp8").total.weight_bytes < 0.6 * bf16.weight_bytes
    assert decode(shape, 8, 4096, kv_dtype="fp8").total.cache_bytes == bf16.cache_bytes / 2
    assert decode(shape, 8, 4096, weight_dtype="int4").total.flops == bf16.flops


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(batch=st.integers(1, 512), context=st.integers(0, 50_000))
def test_decode_moves_at_least_the_weights_one_token_needs(
    name: str, batch: int, context: int
) -> None:
    shape = shape_of(name)
    active = count_parameters(shape).active_without_embedding
    work = decode(shape, batch, context).total
    assert work.bytes >= 0.99 * 2 * active
    assert work.weight_bytes <= weight_bytes(shape)
    assert work.flops >= batch * 1.9 * active


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(length=st.integers(1, 4000), more=st.integers(1, 4000))
def test_longer_prompts_are_more_intense(name: str, length: int, more: int) -> None:
    short, long = (prefill(shape_of(name), 1, n).linear for n in (length, length + more))
    assert long.intensity >= short.intensity


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(batch=st.integers(1, 300), more=st.integers(1, 300))
def test_work_grows_with_the_batch(name: str, batch: int, more: int) -> None:
    small, large = (decode(shape_of(name), n, 1024).total for n in (batch, batch + more))
    assert large.flops > small.flops
    assert large.bytes > small.bytes


@pytest.mark.parametrize(("batch", "length", "cached"), [(0, 10, 0), (1, 10, 10), (1, 10, -1)])
def test_impossible_steps_are_refused(batch: int, length: int, cached: int) -> None:
    with pytest.raises(LabError, match="不成立"):
        prefill(shape_of("gpt2"), batch, length, cached)
