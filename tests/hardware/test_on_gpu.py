"""Against a real NVIDIA GPU: what NVML answers, at which rate, and what it costs."""

import re
import subprocess
import sys
import time

import pytest

from inferlab.hardware.catalog import find_gpu
from inferlab.hardware.nvml import gpu_processes, identify, list_gpus, nvml_session
from inferlab.hardware.phases import PhaseRecorder, summarize
from inferlab.hardware.sampler import GpuSampler
from inferlab.hardware.writers import read_jsonl
from inferlab.repository import root

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not list_gpus(), reason="this machine has no NVIDIA GPU"),
]


def test_the_gpu_is_identified_and_holds_what_the_catalog_says():
    gpu = list_gpus()[0]
    spec = find_gpu(gpu.name)
    assert spec is not None, f"{gpu.name} is not in gpus.yaml"
    assert gpu.compute_capability == spec.compute_capability
    assert gpu.memory_bytes == pytest.approx(spec.memory_bytes, rel=0.07)


def test_a_sample_holds_what_every_data_centre_gpu_reports():
    with nvml_session(), GpuSampler(0) as sampler:
        time.sleep(0.2)
        sample = sampler.sample()
    assert sample.power_w is not None and 5 < sample.power_w < 2000
    assert sample.memory_used_bytes is not None and sample.memory_used_bytes >= 0
    assert sample.sm_clock_mhz is not None and sample.sm_clock_mhz > 0
    assert sample.throttle_reasons is not None


def test_gpm_reports_fractions_on_hopper_and_newer():
    with nvml_session(), GpuSampler(0) as sampler:
        capability = identify(0).compute_capability or "0"
        if float(capability) < 9 or "gpm" in sampler.unsupported:
            pytest.skip(f"GPM: {sampler.unsupported.get('gpm', 'older than Hopper')}")
        window_s = max(0.15, 1.1 * sampler.periods_s().get("gpm", 0.0))
        time.sleep(window_s)
        sample = sampler.sample()
    assert sample.gpm_window_s == pytest.approx(window_s, abs=0.1)
    assert sample.sm_active is not None and 0 <= sample.sm_active <= 1
    assert sample.dram_active is not None and 0 <= sample.dram_active <= 1


def test_energy_agrees_with_power_when_the_gpu_is_steady():
    with nvml_session():
        with PhaseRecorder(hz=20) as recorder, recorder.phase("steady"):
            time.sleep(4)
        if "energy" in recorder.unsupported:
            pytest.skip("no energy counter")
    steady = summarize(recorder.samples)["steady"]
    assert steady["energy_power_w"] == pytest.approx(steady["power_w"], rel=0.25)


def test_ten_samples_a_second_cost_less_than_two_per_cent_of_a_core(tmp_path):
    command = [sys.executable, str(root() / "scripts" / "gpu_monitor.py"), "--gpu", "0"]
    options = ["--hz", "10", "--duration", "10", "--jsonl", str(tmp_path / "gpu.jsonl")]
    result = subprocess.run(
        [*command, *options, "--quiet", "--self-cost"], capture_output=True, text=True, check=True
    )
    samples = read_jsonl(tmp_path / "gpu.jsonl")
    span_s = samples[-1].monotonic_s - samples[0].monotonic_s
    assert (len(samples) - 1) / span_s == pytest.approx(10, rel=0.02)
    found = re.search(r"= ([\d.]+) % 的一个核", result.stdout)
    assert found is not None and float(found.group(1)) < 2.0, result.stdout


def test_processes_are_listed_without_their_arguments():
    with nvml_session():
        processes = gpu_processes(0)
    assert all(each.pid > 0 and "/" not in each.name for each in processes)
