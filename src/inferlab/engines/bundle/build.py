"""Build a bundle on a machine with a network: resolve, fetch, drop, prune, cut."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from inferlab.engines.bundle import fatbin, parts
from inferlab.engines.bundle.contents import (
    Contents,
    contents,
    file_rules,
    lab_packages,
    lock_file,
    remove_unneeded_files,
)
from inferlab.engines.bundle.target import Target
from inferlab.engines.environments import index_options
from inferlab.errors import LabError
from inferlab.settings import Settings

MIB = 1 << 20
Say = Callable[[str], None]


def build(engine: str, target: Target, folder: Path, *, part_bytes: int = 40 * MIB,
          accept: Iterable[str] = (), say: Say = print) -> parts.Manifest:  # fmt: skip
    """Make the parts of a bundle in `folder`; an interrupted build goes on where it stopped.

    Args:
        engine: `vllm` or `sglang`.
        target: the host, from `describe`.
        part_bytes: largest size of a part.
        accept: packages of which any version that the host has will do.

    Raises:
        LabError: a package cannot be resolved or fetched for the target.
        UsageError: no such engine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = index_options(Settings.load())
    chosen = contents(engine, target, _lab_pins(engine, target, index), accept)
    say(f"要带的包：{len(chosen.pins)} 个；不带的：{len(chosen.left_out)} 个")
    stage = _staged(chosen, target, folder / ".stage", index, say)
    size = sum(each.stat().st_size for each in stage.rglob("*") if each.is_file())
    say(f"解开后 {size / 1e9:.2f} GB，正在压缩、分卷 …")
    about = {
        "engine": engine, "package": chosen.package, "target": _public(target),
        "packages": list(chosen.pins), "left_out": chosen.left_out,
    }  # fmt: skip
    manifest = parts.pack(stage, folder, part_bytes, about, _Progress(size, say))
    total = sum(part.size for part in manifest.parts)
    say(f"完成：{len(manifest.parts)} 卷，共 {total / 1e6:.0f} MB，在 {folder}")
    return manifest


def _lab_pins(engine: str, target: Target, index: list[str]) -> list[str]:
    """The lab's packages with all that they need, in versions that the engine's lock allows."""
    command = [_uv(), "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate", *index,
               "--constraint", str(lock_file(engine)), "--python-version", target.python,
               "--python-platform", target.uv_platform]  # fmt: skip
    wanted = "\n".join(lab_packages())
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            f"解析不了实验自身的依赖（{_last(done.stderr)}）", remedy="检查网络和镜像设置"
        )
    return done.stdout.splitlines()


def _staged(chosen: Contents, target: Target, stage: Path, index: list[str], say: Say) -> Path:
    """The packages unpacked, without what the target cannot use."""
    stamp = stage.with_suffix(".done")
    wanted = "\n".join([*chosen.pins, repr(_public(target)), repr(file_rules())])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        say("沿用上次解开的包")
        return stage
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    _install(chosen.pins, target, stage, index)
    for pattern, size in remove_unneeded_files(stage, target).items():
        say(f"  去掉 {pattern}：{size / 1e6:.0f} MB")
    pruned = sum(fatbin.prune(library, target.gpus) for library in _libraries(stage))
    say(f"  清空目标 GPU 用不到的 GPU 代码：{pruned / 1e6:.0f} MB")
    stamp.write_text(wanted, encoding="utf-8")
    return stage


def _install(pins: Sequence[str], target: Target, stage: Path, index: list[str]) -> None:
    # uv keeps what it fetched in its cache: an interrupted build fetches only the rest.
    command = [_uv(), "pip", "install", "--no-deps", "--only-binary", ":all:",
               "--link-mode", "copy", "--no-installer-metadata", "--target", str(stage),
               "--python-version", target.python, "--python-platform", target.uv_platform,
               *index, "--requirement", "-"]  # fmt: skip
    done = subprocess.run(command, input="\n".join(pins), text=True, check=False)
    if done.returncode:
        raise LabError(
            "没有取齐所有的包（原因见上文）",
            remedy="网络不通时设 LAB_PIP_INDEX_URL，再运行一次会接着做",
        )


def _libraries(stage: Path) -> list[Path]:
    return sorted(path for path in stage.rglob("*.so*") if path.is_file() and not path.is_symlink())


def _public(target: Target) -> dict[str, object]:
    return {"python": target.python, "machine": target.machine, "glibc": target.glibc,
            "gpus": [list(each) for each in target.gpus]}  # fmt: skip


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["没有输出"])[-1]


class _Progress:
    """Says how far the archive is, every tenth."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say, self._done, self._said = max(total, 1), say, 0, 0

    def __call__(self, size: int) -> None:
        self._done += size
        tenth = min(10, 10 * self._done // self._total)
        if tenth > self._said:
            self._said = tenth
            self._say(f"  {10 * tenth} %")
