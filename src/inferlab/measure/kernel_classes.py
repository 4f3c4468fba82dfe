"""What a kernel's name says about its work: the parts of an engine's step.

The names are those of vLLM 0.32.0's CPU build and of its CUDA build on an H200 (both read from
traces), and of the sources of vLLM, FlashAttention, cuBLAS, CUTLASS and Inductor. Order matters:
the first pattern that is found in a name decides. A kernel that no pattern knows stays `other`,
listed by name, so that nothing is hidden.
"""

import re

MATMUL, ATTENTION, ELEMENTWISE = "matmul", "attention", "elementwise"
SAMPLING, COPY, PREPARE, COMMUNICATION = "sampling", "copy", "prepare", "communication"
OTHER, GAPS = "other", "gaps"
PARTS: tuple[str, ...] = (
    MATMUL, ATTENTION, ELEMENTWISE, SAMPLING, COPY, PREPARE, COMMUNICATION, OTHER, GAPS,
)  # fmt: skip

KEPT_OF_A_NAME = 200  # characters in a record: CUTLASS writes its whole configuration into a name

_TABLE: tuple[tuple[str, str], ...] = (
    # FlashAttention 2 and 3, FlashInfer, vLLM's cache writes; the CPU build's attention
    (
        ATTENTION,
        r"flash_f(wd|prop)|flashattn|flash::|sdpa|fmha|splitkv|paged_?attention|attention_with",
    ),
    (ATTENTION, r"reshape_and_cache|kv_cache_update|prepare_varlen|BatchDecode|BatchPrefill"),
    (ATTENTION, r"unified_attention|merge_attn_states|get_scheduler_metadata|concat_and_cache"),
    (COMMUNICATION, r"nccl|all_?reduce|all_?gather|reduce_?scatter|multimem"),
    # Inductor's fused loops are named after what they replace. With `mm` among it: for one token
    # Inductor writes the product itself as a reduction, norm or activation inside it.
    (SAMPLING, r"argmax|top_?k|top_?p|multinomial|softmax|exponential|gumbel|penalt|sort|logprob"),
    (SAMPLING, r"num_sampled|combine_sampled"),
    (MATMUL, r"triton_(red|per)_fused_(\w+_)?(add|b)?mm_"),
    (ELEMENTWISE, r"triton_(poi|red|per|for)_fused"),
    # cuBLAS (nvjet, xmma, gemv, its split-K sums), CUTLASS, DeepGEMM, Inductor templates, oneDNN
    (MATMUL, r"nvjet|gemm|gemv|cutlass|split_?k|xmma|cublas|triton_(tem|mm)|onednn_mm"),
    (MATMUL, r"aten::(mm|addmm|matmul|bmm|linear)$|_scaled_mm|marlin"),
    (COPY, r"memcpy|memset|copy|CatArray|aten::(to|_to_copy|cat|fill_|clone|empty\w*)$"),
    (ELEMENTWISE, r"vectorized_gather|index_?select|embedding"),
    (PREPARE, r"slot_mapping|block_table|prepare_|_gather_|input_batch|aten::(index|select)"),
    (PREPARE, r"compute_\w*positions|query_start|seq_lens|expand_idx|post_update|apply_write"),
    (ELEMENTWISE, r"rms_?norm|layer_?norm|rotary|rope|silu|gelu|act_and_mul|swiglu"),
    (ELEMENTWISE, r"elementwise|reduce_kernel|indexing|scatter|arange"),
    (ELEMENTWISE, r"aten::\w+"),
)
_PATTERNS = tuple((part, re.compile(pattern, re.IGNORECASE)) for part, pattern in _TABLE)


def part_of(kernel: str) -> str:
    """The part of a step that a kernel belongs to, by its name; `other` when no pattern knows it.

    >>> part_of("nvjet_tst_64x8_64x16_4x1_v_bz_TNT")
    'matmul'
    """
    return next((part for part, pattern in _PATTERNS if pattern.search(kernel)), OTHER)


def short_name(kernel: str) -> str:
    """A kernel's name without namespaces, template arguments and parameters, at most 60 long."""
    name = re.sub(r"^void\s+", "", kernel)
    name = re.sub(r"\(anonymous namespace\)", "", name)
    bare = re.split(r"[<(]", name, maxsplit=1)[0]
    return (bare.rpartition("::")[2] if not bare.startswith(("aten::", "_C::")) else bare)[:60]
