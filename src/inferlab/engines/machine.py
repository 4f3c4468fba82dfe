"""What this machine offers an engine: system, CPU instructions, memory, disk, GPUs, Docker."""

import ctypes
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from inferlab.repository import root

# Without it vLLM's extension fails to load, and the engine dies minutes later of something else.
_CPU_BUILD_LOADS = ("libnuma.so.1",)


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU: name and total memory in bytes (0 when the driver does not say)."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Docker:
    """What Docker offers here.

    Attributes:
        client: version of the `docker` command; empty when there is none.
        daemon: version of the daemon; empty when it cannot be reached.
        problem: why the daemon cannot be reached, in Docker's words.
        compose: the command that runs Compose, `("docker", "compose")` or `("docker-compose",)`;
            empty when neither exists.
        compose_version: such as `2.32.1` or `1.29.2`.
        nvidia_runtime: whether the daemon has the runtime `nvidia` that the compose files ask for.
    """

    client: str = ""
    daemon: str = ""
    problem: str = ""
    compose: tuple[str, ...] = ()
    compose_version: str = ""
    nvidia_runtime: bool = False

    @property
    def usable(self) -> bool:
        """Whether containers can be started with Compose."""
        return bool(self.daemon and self.compose)


@dataclass(frozen=True)
class Machine:
    """The facts on which an engine is chosen; `probe()` reads them, tests write them.

    Attributes:
        system, architecture: as `platform` names them, `Linux` / `Darwin`, `x86_64` / `aarch64`.
        cpu_flags: instruction sets that matter here (`avx2`, `avx512f`, `avx512_bf16`, `amx_tile`).
        driver: NVIDIA driver version; empty without a GPU.
        missing_libraries: system libraries that vLLM's CPU build loads and that are not installed.
    """

    system: str
    architecture: str
    cpu_flags: frozenset[str]
    cpu_count: int
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    python_version: tuple[int, int]
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    missing_libraries: tuple[str, ...] = ()
    docker: Docker = Docker()

    @classmethod
    def probe(cls) -> "Machine":
        """Read this machine; takes a few hundred milliseconds where Docker answers."""
        gpus, driver = _gpus()
        memory = psutil.virtual_memory()
        return cls(
            system=platform.system(),
            architecture=platform.machine(),
            cpu_flags=_cpu_flags(),
            cpu_count=psutil.cpu_count() or 1,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            disk_free_bytes=shutil.disk_usage(root()).free,
            python_version=sys.version_info[:2],
            gpus=gpus,
            driver=driver,
            missing_libraries=tuple(name for name in _CPU_BUILD_LOADS if not _can_load(name)),
            docker=probe_docker(),
        )


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def probe_docker() -> Docker:
    """Look for the client, a daemon that answers, Compose v2 or v1, and the NVIDIA runtime."""
    client = _output(["docker", "version", "--format", "{{.Client.Version}}"])
    if not client.text:
        client = _output(["docker", "--version"])
    if not client.text:
        return Docker()
    information = _output(["docker", "info", "--format", "{{json .}}"])
    facts = _json_object(information.text)
    compose, compose_version = _compose()
    return Docker(
        client=client.text.splitlines()[0],
        daemon=facts.get("ServerVersion", ""),
        problem=information.problem if not facts.get("ServerVersion") else "",
        compose=compose,
        compose_version=compose_version,
        nvidia_runtime="nvidia" in (facts.get("Runtimes") or {}),
    )


@dataclass(frozen=True)
class _Output:
    text: str
    problem: str = ""


def _output(command: list[str], *, timeout_s: float = 8.0) -> _Output:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError:
        return _Output("", f"{command[0]}: command not found")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Output("", str(error))
    lines = done.stderr.strip().splitlines()
    return _Output(done.stdout.strip(), lines[-1] if lines else "")


def _json_object(text: str) -> dict:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _compose() -> tuple[tuple[str, ...], str]:
    for command in (("docker", "compose"), ("docker-compose",)):
        version = _output([*command, "version", "--short"]).text
        if version.removeprefix("v")[:1].isdigit():
            return command, version.removeprefix("v")
    return (), ""


def _cpu_flags() -> frozenset[str]:
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return frozenset()
    wanted = {"avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd"}
    for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.lower().startswith(("flags", "features")):
            return frozenset(line.split()) & wanted
    return frozenset()


def _gpus() -> tuple[tuple[Gpu, ...], str]:
    """Those that this process may use."""
    from inferlab.hardware.host import is_visible
    from inferlab.hardware.nvml import NoGpuError, list_gpus

    try:
        found = [gpu for gpu in list_gpus() if is_visible(gpu.index)]
    except NoGpuError:
        return (), ""
    driver = next((gpu.driver_version for gpu in found if gpu.driver_version), "")
    return tuple(Gpu(gpu.name, gpu.memory_bytes or 0) for gpu in found), driver
