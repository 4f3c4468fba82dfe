"""The three bottlenecks, on counters that were really measured."""

import pytest

from inferlab.diagnose.bottleneck import Bottleneck, diagnose
from inferlab.records import store

RECORDED = {
    "one_thread": Bottleneck.OVERHEAD,
    "copy": Bottleneck.MEMORY_BANDWIDTH,
    "decode_batch_1": Bottleneck.MEMORY_BANDWIDTH,
    "decode_batch_64": Bottleneck.MEMORY_BANDWIDTH,
    "prefill_8192": Bottleneck.COMPUTE,
    "matmul_8192": Bottleneck.COMPUTE,
}


@pytest.mark.parametrize("phase", RECORDED)
def test_known_work_is_told_apart_by_its_counters(phase):
    record = store.find("chapter03", "gpu_load", "h200")
    found = diagnose(
        tensor_active=record.one("tensor_active", phase=phase).mean,
        dram_active=record.one("dram_active", phase=phase).mean,
        gpu_util=record.one("gpu_util_percent", phase=phase).mean / 100,
    )
    assert found.bottleneck is RECORDED[phase]
    assert found.evidence and found.first_step


def test_gpu_util_alone_changes_nothing():
    busy, idle = (diagnose(tensor_active=0.1, dram_active=0.1, gpu_util=u) for u in (1.0, 0.0))
    assert busy.bottleneck is idle.bottleneck is Bottleneck.OVERHEAD
