"""GPU telemetry around a run, when this machine has GPUs at work; nothing otherwise."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from inferlab.errors import LabError
from inferlab.hardware.host import GpuInfo, HostInfo, describe_host, is_visible

BUSY_BYTES = 1 << 30
HZ = 5.0


def visible_gpus(host: HostInfo) -> list[GpuInfo]:
    """The host's GPUs that are ours to use."""
    return [each for each in host.gpus if is_visible(each.index)]


def busy_gpus() -> list[int]:
    """Indices of the visible GPUs whose memory is in use by more than 1 GiB: those that serve."""
    from inferlab.hardware.nvml import nvml_session
    from inferlab.hardware.sampler import GpuSampler

    found = []
    try:
        with nvml_session():
            for gpu in visible_gpus(describe_host()):
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
        result.update(_short(summarize(recorder.samples).get("run", {})), gpus=gpus)


@dataclass
class Marks:
    """Phase marks of a measurement: `with marks.mark("decode 64×1024"): …`.

    Attributes:
        summary: phase → means and energy as `phases.summarize`; filled at the end, empty without
            GPUs.
    """

    mark: Callable[[str], AbstractContextManager[Any]] = nullcontext
    summary: dict[str, Any] = field(default_factory=dict)


@contextmanager
def marked_telemetry(gpus: list[int]) -> Iterator[Marks]:
    """Samples GPUs while inside; what is not marked is left out of the summary."""
    marks = Marks()
    if not gpus:
        yield marks
        return
    from inferlab.hardware.nvml import nvml_session
    from inferlab.hardware.phases import PhaseRecorder, summarize

    with nvml_session():
        with PhaseRecorder(HZ, gpus) as recorder:
            marks.mark = recorder.phase
            try:
                yield marks
            finally:
                marks.mark = nullcontext
        marks.summary.update({name: _short(found) for name, found in
                              summarize(recorder.samples).items()})  # fmt: skip


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    """What was seen, to five digits: a record may hold a hundred phases."""
    known = {name: value for name, value in summary.items() if value is not None}
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value
            for name, value in known.items()}  # fmt: skip
