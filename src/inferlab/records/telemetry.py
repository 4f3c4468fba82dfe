"""GPU telemetry around a run, when this machine has GPUs at work; nothing otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inferlab.errors import LabError

BUSY_BYTES = 1 << 30
HZ = 5.0


def busy_gpus() -> list[int]:
    """Indices of the GPUs whose memory is in use by more than 1 GiB: those that serve."""
    from inferlab.hardware.host import describe_host
    from inferlab.hardware.nvml import nvml_session
    from inferlab.hardware.sampler import GpuSampler

    found = []
    try:
        with nvml_session():
            for gpu in describe_host().gpus:
                sampler = GpuSampler(gpu.index)
                used = sampler.sample().memory_used_bytes or 0
                sampler.close()
                found += [gpu.index] if used > BUSY_BYTES else []
    except LabError:
        return []
    return found


@contextmanager
def gpu_telemetry(gpus: list[int]) -> Iterator[dict[str, Any]]:
    """Fills the dictionary it gives when it is left: means and energy as `phases.summarize`."""
    result: dict[str, Any] = {}
    if not gpus:
        yield result
        return
    from inferlab.hardware.nvml import nvml_session
    from inferlab.hardware.phases import PhaseRecorder, summarize

    with nvml_session():
        with PhaseRecorder(HZ, gpus) as recorder, recorder.phase("run"):
            yield result
        result.update(summarize(recorder.samples).get("run", {}), gpus=gpus)
