"""The monitor as its user meets it, on a machine without a GPU; its table and its metrics."""

import subprocess
import sys
from urllib.request import urlopen

import pytest
from gpu_samples import FULL, SPARSE

from inferlab.errors import UsageError
from inferlab.hardware.exporter import SampleCollector, serve
from inferlab.hardware.nvml import GpuIdentity, NoGpuError, list_gpus, nvml_session
from inferlab.hardware.sample import carry_gpm
from inferlab.hardware.view import COLUMNS, LiveView, cells
from inferlab.repository import root

needs_no_gpu = pytest.mark.skipif(bool(list_gpus()), reason="this machine has an NVIDIA GPU")
H200 = GpuIdentity(0, "NVIDIA H200", 141 * 2**30, "9.0", "580.1", "13.0", 700.0, 1980, "5.0 x16")


def run_monitor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root() / "scripts" / "gpu_monitor.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_no_gpu
def test_without_a_gpu_one_line_and_exit_code_2(tmp_path):
    result = run_monitor("--duration", "1", "--csv", str(tmp_path / "gpu.csv"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("错误: 没有可用的 NVIDIA GPU 或驱动（")
    assert list(tmp_path.iterdir()) == []


@needs_no_gpu
def test_without_a_gpu_a_session_says_so():
    with pytest.raises(NoGpuError, match="没有可用的 NVIDIA GPU"), nvml_session():
        pass


def test_a_wrong_gpu_list_is_wrong_use():
    result = run_monitor("--gpu", "zero")
    assert (result.returncode, result.stdout) == (2, "")
    assert "GPU 编号应为" in result.stderr


def test_prometheus_serves_the_latest_sample_on_the_loopback():
    collector = SampleCollector({0: "NVIDIA H200"})
    collector.update([SPARSE])
    collector.update([FULL])
    port = serve(collector, 0)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'inferlab_gpu_power_w{gpu="0",name="NVIDIA H200"} 412.5' in text
    assert 'inferlab_gpu_energy_joules_total{gpu="0",name="NVIDIA H200"} 98765.432' in text
    assert 'reason="sw_power_cap"} 1.0' in text
    assert "inferlab_gpu_fp64_active{" not in text
    with pytest.raises(UsageError, match="无法监听"):
        serve(collector, port)


def test_the_table_shows_what_the_gpu_reports_and_dashes_for_the_rest():
    shown = dict(zip(COLUMNS, cells(FULL, H200), strict=True))
    assert shown == {
        "GPU": "0",
        "Util %": "100",
        "SM %": "93",
        "占用 %": "–",
        "Tensor %": "4",
        "DRAM %": "71",
        "显存 GiB": "123.0/141",
        "功率 W": "412/700",
        "MHz": "1980",
        "°C": "55",
        "降频": "sw_power_cap sync_boost",
    }
    assert cells(SPARSE, H200)[-1] == "无"


def test_between_two_gpm_windows_the_last_one_is_shown():
    shown = carry_gpm(SPARSE, FULL)
    assert (shown.sm_active, shown.power_w) == (FULL.sm_active, SPARSE.power_w)
    assert carry_gpm(FULL, SPARSE) is FULL


def test_the_table_is_redrawn_at_most_four_times_a_second(capsys):
    with LiveView([H200], processes=False) as view:
        drawn = [view.update([FULL]) for _ in range(50)]
    assert drawn == [True] + [False] * 49
    assert "H200" in capsys.readouterr().out
