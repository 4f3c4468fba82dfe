"""Chapter 3's exercises: each asks for what the section before it has shown how to compute."""

from inferlab.arithmetic.kv_cache import kv_bytes_per_token, max_concurrency
from inferlab.arithmetic.roofline import decode, ridge_batch
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.book.exercise import Exercise
from inferlab.diagnose.bottleneck import diagnose
from inferlab.errors import LabError
from inferlab.hardware.catalog import GpuSpec, find_gpu
from inferlab.records import store
from inferlab.repository import root

GIB = 1 << 30


def known_shape(name: str) -> ModelShape:
    """The shape of a model in `models/configs/`, such as `qwen3-8b`."""
    return ModelShape.from_config(root() / "models" / "configs" / f"{name}.json")


def gpu(name: str) -> GpuSpec:
    """A GPU of the catalog by the name NVML prints.

    Raises:
        LabError: it is not in the catalog.
    """
    spec = find_gpu(name)
    if spec is None:
        raise LabError(f"gpus.yaml 里没有 {name!r}", remedy="用 nvidia-smi 显示的名字")
    return spec


def _kv_bytes_of_32k() -> float:
    return 32_768 * kv_bytes_per_token(known_shape("llama-3.1-70b")) / GIB


def _concurrency_with_fp8_cache() -> float:
    return max_concurrency(known_shape("qwen3-8b"), 40 * GIB, 8192, kv_dtype="fp8").max_concurrency


def _ridge_batch_of_h20() -> float:
    spec = gpu("NVIDIA H20")
    return ridge_batch(Ceilings(spec.peak("bf16"), spec.memory_bytes_per_s))


def _decode_floor_ms_on_a100() -> float:
    spec = gpu("NVIDIA A100-SXM4-80GB")
    ceilings = Ceilings(spec.peak("bf16"), spec.memory_bytes_per_s)
    return decode(known_shape("qwen3-8b"), 1, 1024).total.against(ceilings).floor_s * 1e3


def _bottleneck_of_decode_at_64() -> str:
    record = store.find("chapter03", "gpu_load", "h200")
    counters = {
        name: record.one(name, phase="decode_batch_64").mean
        for name in ("tensor_active", "dram_active", "gpu_util_percent")
    }
    found = diagnose(
        tensor_active=counters["tensor_active"],
        dram_active=counters["dram_active"],
        gpu_util=counters["gpu_util_percent"] / 100,
    )
    return str(found.bottleneck)


EXERCISES = (
    Exercise(
        "ch03-1",
        "Llama-3.1-70B，bf16 KV cache：一个 32,768 token 的请求占多少 GiB？",
        _kv_bytes_of_32k,
        "2（K 和 V）× 层数 × KV 头数 × head_dim × 2 字节，再乘 token 数；1 GiB = 2³⁰ 字节",
    ),
    Exercise(
        "ch03-2",
        "Qwen3-8B 有 40 GiB 显存放 KV cache，KV 用 fp8，最长 8,192 token：最大并发是多少？",
        _concurrency_with_fp8_cache,
        "fp8 每个元素 1 字节；并发 = KV 池字节 ÷（8,192 × 每 token 字节）",
    ),
    Exercise(
        "ch03-3",
        "H20 的 bf16 稠密峰值与带宽决定：batch 到多大，稠密矩阵乘才由带宽受限转为算力受限？",
        _ridge_batch_of_h20,
        "每个权重 2 字节、每 token 2 FLOP，所以 batch* = 峰值 ÷ 带宽；注意 H20 的算力很低",
        tolerance=0.05,
    ),
    Exercise(
        "ch03-4",
        "A100-SXM 80GB 上 Qwen3-8B（bf16，batch 1，上下文 1,024）一步 decode 至少多少毫秒？",
        _decode_floor_ms_on_a100,
        "要读的字节 ÷ 带宽：全部权重（输入 embedding 除外）加 KV cache",
        tolerance=0.03,
    ),
    Exercise(
        "ch03-5",
        "H200 上 batch 64 的 decode，瓶颈是 compute、memory bandwidth 还是 overhead？",
        _bottleneck_of_decode_at_64,
        "看上图 decode×64 的 DRAM active 与 Tensor active 谁更高",
    ),
)
