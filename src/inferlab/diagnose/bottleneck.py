"""The three kinds of bottleneck, told apart by counters that mean something."""

from dataclasses import dataclass
from enum import StrEnum


class Bottleneck(StrEnum):
    """What an inference GPU waits for."""

    COMPUTE = "compute"
    MEMORY_BANDWIDTH = "memory bandwidth"
    OVERHEAD = "overhead"


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with what speaks for it and what to try first."""

    bottleneck: Bottleneck
    evidence: str
    first_step: str


# Share of the peak from which a unit counts as the limit. On an H200 a large matrix product holds
# tensor_active at 0.92, a plain copy dram_active at 0.81, and decode at batch 1 still reads at 0.64
# (results/h200/chapter03/gpu_load.json).
BUSY = 0.6


def diagnose(*, tensor_active: float, dram_active: float, gpu_util: float) -> Diagnosis:
    """Name the bottleneck from one phase's mean counters.

    Args:
        tensor_active, dram_active: shares 0-1 of the peak (GPM or DCGM profiling metrics).
        gpu_util: NVML's GPU-Util as a share 0-1; used only as evidence, it proves nothing.

    The busier of the two units decides when it is above `BUSY`; with neither busy, the GPU waits
    for something else: kernel launches, the scheduler, the host, too little work.
    """
    seen = f"tensor {tensor_active:.0%}，DRAM {dram_active:.0%}，GPU-Util {gpu_util:.0%}"
    if max(tensor_active, dram_active) < BUSY:
        return Diagnosis(
            Bottleneck.OVERHEAD,
            f"{seen}：算力和带宽都不忙，GPU-Util 再高也只说明有 kernel 在跑",
            "加大并发；检查 CUDA Graph、CPU 占用、数据拷贝与采样开销",
        )
    if tensor_active >= dram_active:
        return Diagnosis(
            Bottleneck.COMPUTE,
            f"{seen}：tensor core 是最忙的部件",
            "降低精度（FP8）、减少重复 prefill（prefix cache）、加卡",
        )
    return Diagnosis(
        Bottleneck.MEMORY_BANDWIDTH,
        f"{seen}：显存带宽是最忙的部件",
        "减少要读的字节：量化权重与 KV cache、加大 batch、GQA/MLA 模型、投机采样",
    )
