"""What a record says about its machine."""

import getpass
import platform

import pytest

from inferlab.hardware.host import (
    cpu_model,
    describe_host,
    is_visible,
    isa_flags,
    meminfo_bytes,
    physical_cores,
)

CPUINFO = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse avx2 avx512f avx512_vnni avx512_bf16 amx_bf16

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8481C
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse avx2 avx512f avx512_vnni avx512_bf16 amx_bf16

processor\t: 2
model name\t: Intel(R) Xeon(R) Platinum 8481C
physical id\t: 1
core id\t\t: 0
flags\t\t: fpu sse avx2 avx512f avx512_vnni avx512_bf16 amx_bf16
"""


def test_hyperthreads_share_a_physical_core():
    assert physical_cores(CPUINFO) == 2


def test_cpu_model_and_flags_that_matter():
    assert cpu_model(CPUINFO) == "Intel(R) Xeon(R) Platinum 8481C"
    assert isa_flags(CPUINFO) == ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")


def test_arm_kernels_tell_less():
    arm = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"
    assert cpu_model(arm) is None
    assert physical_cores(arm) is None
    assert isa_flags(arm) == ("asimd", "sve", "bf16")


def test_meminfo_is_read_in_bytes():
    assert meminfo_bytes("MemTotal:       24683108 kB\nHugePages_Total: 0\n") == {
        "MemTotal": 24683108 * 1024
    }


def test_this_machine_is_described_consistently():
    host = describe_host()
    assert 1 <= host.cpu.usable_cores <= host.cpu.logical_cores
    assert 0 < host.memory.available_bytes <= host.memory.total_bytes
    assert host.python == platform.python_version()
    assert (host.driver_version is None) == (not host.gpus)


def test_nothing_in_it_names_the_host_or_its_user():
    text = describe_host().model_dump_json().lower()
    assert f'"{platform.node().lower()}"' not in text
    assert f'"{getpass.getuser().lower()}"' not in text


@pytest.mark.parametrize(("listed", "expected"), [
    (None, [0, 1, 2]), ("", [0, 1, 2]), ("1", [1]), ("0, 2", [0, 2]), ("GPU-8a56", [0, 1, 2]),
])  # fmt: skip
def test_only_listed_gpus_are_ours(
    listed: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [gpu for gpu in range(3) if is_visible(gpu)] == expected
