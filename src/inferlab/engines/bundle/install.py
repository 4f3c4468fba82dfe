"""Install a bundle on a host without a network; the standard library alone."""

import compileall
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inferlab.engines.bundle import parts
from inferlab.engines.bundle.target import Target, describe_this_host, require_same
from inferlab.errors import LabError, UsageError

DONE = ".bundle.json"
VARIABLES = {"vllm": "LAB_BUNDLE", "sglang": "LAB_BUNDLE_SGLANG"}  # name the folder
Say = Callable[[str], None]


def install(folder: Path, into: Path, *, say: Say = print) -> Path:
    """Check every part, unpack all into `into` and compile to bytecode.

    Args:
        folder: where the parts and the manifest are.
        into: a folder that does not exist yet, or holds this very bundle.

    Returns:
        `into`, resolved: what the engine's variable has to name.

    Raises:
        LabError: a part is missing or damaged (each is named), the bundle is for another host, or
            the disk is too small.
        UsageError: `into` holds something else.
    """
    into = into.resolve()
    manifest = parts.Manifest.load(folder)
    if _holds(into, manifest):
        say(f"{into} 已经是这个包")
        return into
    if into.exists() and any(into.iterdir()):
        raise UsageError(f"{into} 不是空目录", remedy="换一个目录，或先删掉它")
    require_same(_target(manifest), describe_this_host())
    _require_disk(into, manifest.unpacked_bytes)
    say(f"正在检查 {len(manifest.parts)} 卷 …")
    if wrong := parts.problems(manifest, folder):
        raise LabError("；".join(wrong), remedy=f"重新复制这 {len(wrong)} 卷到 {folder}")
    say(f"正在解开 {manifest.unpacked_bytes / 1e9:.2f} GB …")
    temporary = into.with_name(into.name + ".unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    parts.unpack(manifest, folder, temporary)
    say("正在编译字节码 …")
    with _no_warnings():
        compileall.compile_dir(temporary, quiet=2, workers=os.cpu_count() or 1)
    (temporary / ".python").write_text(sys.executable + "\n", encoding="utf-8")
    shutil.copy(folder / parts.MANIFEST, temporary / DONE)
    if into.exists():
        into.rmdir()
    temporary.replace(into)
    return into


def installed(into: Path) -> parts.Manifest:
    """The manifest of an installed bundle.

    Raises:
        LabError: there is none in this folder.
    """
    if not (into / DONE).is_file():
        raise LabError(f"{into} 里没有装好的包", remedy="先运行 offline_bundle.py install")
    return parts.Manifest.read(into / DONE)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence what Python says of other people's code, in processes started here too."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _holds(into: Path, manifest: parts.Manifest) -> bool:
    return (into / DONE).is_file() and installed(into) == manifest


def _target(manifest: parts.Manifest) -> Target:
    raw = manifest.about["target"]
    return Target(
        raw["python"], raw["machine"], raw["glibc"], tuple((a, b) for a, b in raw["gpus"])
    )


def _require_disk(into: Path, needed: int) -> None:
    existing = next(each for each in (into, *into.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < needed * 1.1:
        raise LabError(
            f"{existing} 只剩 {free / 1e9:.1f} GB，解开需要 {needed * 1.1 / 1e9:.1f} GB",
            remedy="用 --into 指到更大的盘",
        )
