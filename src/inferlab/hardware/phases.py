"""Which part of a run a sample belongs to, and what each part came to.

Use:

    with nvml_session(), PhaseRecorder(hz=10) as recorder:
        with recorder.phase("prefill"):
            ...
        with recorder.phase("decode"):
            ...
    print(summarize(recorder.samples))
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from statistics import fmean
from typing import Any

from inferlab.hardware.sample import FIELD_NAMES, GPM_FIELDS, GpuSample
from inferlab.hardware.sampler import GpuSampler

TRAFFIC_FIELDS = tuple(name for name in FIELD_NAMES if name.endswith("_bytes_per_s"))
MEAN_FIELDS = (
    "gpu_util_percent",
    "memory_util_percent",
    "memory_used_bytes",
    "power_w",
    "power_instant_w",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    *TRAFFIC_FIELDS,
    *GPM_FIELDS,
)


class PhaseRecorder:
    """Samples GPUs from a background thread and marks each sample with the phase it fell in.

    A phase begins and ends with a boundary sample, so its energy is a difference of the counter
    over exactly that phase. Enter it inside `nvml_session()`; `samples` is complete after it is
    left. The thread shares the interpreter with whatever runs in this process: where that is the
    measured work itself, 10 Hz (well under a millisecond each) is not worth a second process.

    Above 10 Hz the GPM fields are `None` in the samples that close no 100 ms window.

    Args:
        hz: samples per second and GPU.
        gpus: NVML indices.
        pcie: see `GpuSampler`.

    Raises:
        UsageError: a GPU index does not exist.
    """

    def __init__(self, hz: float = 10.0, gpus: Sequence[int] = (0,), *, pcie: bool = False) -> None:
        self.hz = hz
        self.samples: list[GpuSample] = []
        self._samplers = [GpuSampler(index, pcie=pcie) for index in gpus]
        self._phase = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def _run(self) -> None:
        for _ in ticks(self.hz, self._stop):
            with self._lock:
                self._take()

    def _take(self, *, boundary: bool = False) -> None:
        for sampler in self._samplers:
            sample = sampler.sample(boundary=boundary)
            self.samples.append(replace(sample, phase=self._phase))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark what is sampled inside as `name`. Phases may repeat, but not nest.

        The caller sees to it that GPU work has ended before it leaves (`torch.cuda.synchronize()`,
        a whole response).
        """
        if self._phase:
            raise RuntimeError(f"phase {name!r} inside phase {self._phase!r}")
        with self._lock:
            self._phase = name
            self._take(boundary=True)
        try:
            yield
        finally:
            with self._lock:
                self._take(boundary=True)
                self._phase = ""

    @property
    def unsupported(self) -> dict[str, str]:
        """Metric → reason, for what the first GPU lacks."""
        return self._samplers[0].unsupported

    def __enter__(self) -> "PhaseRecorder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for sampler in self._samplers:
            sampler.close()


def ticks(
    hz: float, stop: threading.Event, clock: Callable[[], float] = time.monotonic
) -> Iterator[float]:
    """Moments `1 / hz` seconds apart until `stop` is set; a late one skips what it missed."""
    period_s = 1.0 / hz
    due_s = clock()
    while not stop.wait(max(0.0, due_s - clock())):
        yield due_s
        missed = int(max(0.0, clock() - due_s) / period_s)
        due_s += period_s * (missed + 1)


def summarize(samples: Sequence[GpuSample], *, settle_s: float = 1.0) -> dict[str, dict[str, Any]]:
    """What each phase came to, over all the GPUs sampled.

    Args:
        samples: as `PhaseRecorder.samples`; those outside any phase are left out.
        settle_s: leave out of the means the first seconds of each run of a phase.
            `gpu_util_percent` and `power_w` are the driver's averages over up to one second, so
            with `settle_s=1` they hold nothing from before the phase. GPM values need no settling,
            since their window is restarted where a phase begins. Energy and duration always cover
            the whole phase. A phase shorter than `settle_s` is averaged whole and says `settled:
            False`.

    Returns:
        phase → `samples`, `runs`, `duration_s` (per GPU, summed over runs), `energy_j` (summed over
        GPUs and runs), `energy_power_w` (energy ÷ duration, all GPUs together), `settled`, the mean
        of each metric under the sample's own field name (`None` where it was never available), and
        `throttle_reasons` as {name: share of samples}.
    """
    runs = _runs(samples)
    return {phase: _summarize_phase(found, settle_s) for phase, found in runs.items()}


def _runs(samples: Sequence[GpuSample]) -> dict[str, list[list[GpuSample]]]:
    """phase → its runs; a run is one stretch of one GPU in that phase, in order of time."""
    runs: dict[str, list[list[GpuSample]]] = defaultdict(list)
    by_gpu = sorted(samples, key=lambda each: (each.index, each.monotonic_s))
    for (_, phase), stretch in groupby(by_gpu, key=lambda each: (each.index, each.phase)):
        if phase:
            runs[phase].append(list(stretch))
    return dict(runs)


def _summarize_phase(runs: list[list[GpuSample]], settle_s: float) -> dict[str, Any]:
    everything = [each for run in runs for each in run]
    settled = [e for run in runs for e in run if e.monotonic_s >= run[0].monotonic_s + settle_s]
    gpus = len({each.index for each in everything})
    duration_s = sum(run[-1].monotonic_s - run[0].monotonic_s for run in runs) / gpus
    energy_j = _energy_j(runs)
    measured_j = energy_j if duration_s > 0 else None
    return {
        "samples": len(everything),
        "runs": len(runs) // gpus,
        "duration_s": duration_s,
        "energy_j": energy_j,
        "energy_power_w": None if measured_j is None else measured_j / duration_s,
        "settled": bool(settled),
        **{name: _mean(settled or everything, name) for name in MEAN_FIELDS},
        **{name: _gpm_mean(runs, name) for name in GPM_FIELDS},
        "throttle_reasons": _throttle_shares(settled or everything),
    }


def _energy_j(runs: list[list[GpuSample]]) -> float | None:
    ends = [(run[0].energy_j, run[-1].energy_j) for run in runs]
    pairs = [(first, last) for first, last in ends if first is not None and last is not None]
    return sum(last - first for first, last in pairs) if len(pairs) == len(runs) else None


def _mean(samples: Sequence[GpuSample], name: str) -> float | None:
    values = [value for each in samples if (value := getattr(each, name)) is not None]
    return fmean(values) if values else None


def _gpm_mean(runs: list[list[GpuSample]], name: str) -> float | None:
    """Mean of a GPM metric, each value weighted by its window; windows that reach back out are left
    out."""
    total = covered_s = 0.0
    for run in runs:
        for each in run:
            window_s, value = each.gpm_window_s, getattr(each, name)
            if window_s is None or value is None:
                continue
            # The millisecond absorbs the time between the stamp and the reading.
            if each.monotonic_s - window_s < run[0].monotonic_s - 0.001:
                continue
            total += value * window_s
            covered_s += window_s
    return total / covered_s if covered_s else None


def _throttle_shares(samples: Sequence[GpuSample]) -> dict[str, float]:
    known = [each.throttle_reasons for each in samples if each.throttle_reasons is not None]
    names = sorted({name for reasons in known for name in reasons})
    return {name: sum(name in reasons for reasons in known) / len(known) for name in names}
