"""The host that a bundle is for, as the host itself describes it."""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from inferlab.errors import LabError, UsageError


@dataclass(frozen=True)
class Target:
    """A host without a network.

    Attributes:
        python: its interpreter's version, such as `3.12`.
        machine: `x86_64` or `aarch64`.
        glibc: its C library's version, such as `2.39`; decides which wheels load there.
        gpus: compute capability of its GPUs, such as `(9, 0)`; empty when it has none or is not
            known, and then GPU code for all generations travels.
        driver: NVIDIA driver version; empty when not known.
        packages: what its interpreter has, name → version; need not travel when it fits.
    """

    python: str = "3.12"
    machine: str = "x86_64"
    glibc: str = "2.28"
    gpus: tuple[tuple[int, int], ...] = ()
    driver: str = ""
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def uv_platform(self) -> str:
        """As `uv --python-platform` names it; the newest that both it and the host know."""
        newest = min(_minor(self.glibc), 40)
        return f"{self.machine}-manylinux_2_{newest}"

    @classmethod
    def load(cls, path: Path) -> "Target":
        """Read what `describe` wrote.

        Raises:
            UsageError: the file cannot be read or is none of ours.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**raw, "gpus": tuple((a, b) for a, b in raw["gpus"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{path} 不是目标主机的描述（{error}）",
                remedy="在目标主机上运行 python3 scripts/offline_bundle.py describe > host.json",
            ) from None


def describe_this_host() -> Target:
    """This machine, seen by this interpreter."""
    return Target(
        python="{}.{}".format(*sys.version_info[:2]),
        machine=platform.machine(),
        glibc=platform.libc_ver()[1] or "2.28",
        gpus=_gpus(),
        driver=next(iter(_nvidia_smi("driver_version")), ""),
        packages={normal(d.metadata["Name"]): d.version for d in metadata.distributions()},
    )


def require_same(wanted: Target, here: Target) -> None:
    """Raise a LabError when a bundle for `wanted` cannot run on `here`."""
    for name, a, b in (
        ("Python", wanted.python, here.python),
        ("架构", wanted.machine, here.machine),
    ):
        if a != b:
            raise LabError(
                f"这个包是为 {name} {a} 做的，这台主机是 {b}",
                remedy=f"用 {name} {a} 运行，或按这台主机的 describe 重新 build",
            )
    if _minor(here.glibc) < _minor(wanted.glibc):
        raise LabError(
            f"这个包要求 glibc {wanted.glibc}，这台主机是 {here.glibc}",
            remedy="按这台主机的 describe 重新 build",
        )
    missing = [f"{a}.{b}" for a, b in here.gpus if wanted.gpus and (a, b) not in wanted.gpus]
    if missing:
        made_for = "、".join(f"{a}.{b}" for a, b in wanted.gpus)
        raise LabError(
            f"这个包只带了计算能力 {made_for} 的 GPU 代码，这台主机的 GPU 是 {'、'.join(missing)}",
            remedy="按这台主机的 describe 重新 build",
        )


def normal(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return name.lower().replace("_", "-").replace(".", "-")


def _gpus() -> tuple[tuple[int, int], ...]:
    found = {tuple(int(part) for part in line.split(".")) for line in _nvidia_smi("compute_cap")}
    return tuple(sorted((each[0], each[1]) for each in found))


def _nvidia_smi(field_name: str) -> list[str]:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    command = [tool, f"--query-gpu={field_name}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def _minor(version: str) -> int:
    return int(version.split(".")[1])
