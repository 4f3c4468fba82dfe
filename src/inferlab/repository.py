"""Where things are: the repository's root, its labs, its state folder and its pinned versions."""

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from inferlab.errors import LabError, UsageError

_LAB_KEYS = ("title", "engine", "model", "deployments", "up", "recorded_model", "recorded_flags",
             "experiments")  # fmt: skip


@cache
def root() -> Path:
    """The repository's root: `INFERLAB_ROOT`, else the nearest parent that holds `versions.toml`.

    Raises:
        LabError: neither this package nor the working directory lies in a clone.
    """
    if configured := os.environ.get("INFERLAB_ROOT"):
        return Path(configured).resolve()
    for start in (Path(__file__).resolve(), Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "versions.toml").is_file():
                return folder
    raise LabError(
        f"找不到仓库根目录（{Path.cwd()} 及其上级目录中没有 versions.toml）",
        remedy="在克隆下来的仓库里运行，或设置 INFERLAB_ROOT",
    )


def state_dir() -> Path:
    """`.lab/`: logs, process ids and tokens of this clone; made when missing, never committed."""
    folder = root() / ".lab"
    folder.mkdir(exist_ok=True)
    return folder


@cache
def versions() -> dict[str, Any]:
    """The content of `versions.toml`, by section."""
    return tomllib.loads((root() / "versions.toml").read_text(encoding="utf-8"))


def labs() -> list[str]:
    """Names of the labs that exist, such as `chapter03` and `chapter07/pd`, in order."""
    code = root() / "code"
    return sorted(path.parent.relative_to(code).as_posix() for path in code.glob("**/lab.yaml"))


def lab_dir(name: str) -> Path:
    """The folder of one lab.

    Raises:
        UsageError: there is no such lab.
    """
    folder = root() / "code" / name
    if not (folder / "lab.yaml").is_file():
        raise UsageError(f"没有名为 {name!r} 的实验", remedy=f"可选：{'、'.join(labs())}")
    return folder


def lab_description(folder: Path) -> dict[str, Any]:
    """The content of a lab's `lab.yaml`, its top-level keys checked.

    Raises:
        UsageError: it is not YAML, not a mapping, or has an unknown key; the message names it.
    """
    file = folder / "lab.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UsageError(
            f"{file} 第 {line} 行不是合法的 YAML：{error.problem}", remedy="检查缩进和括号"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} 不是一组键和值", remedy="写成 experiments: […] 的样子")
    if unknown := [str(key) for key in content if key not in _LAB_KEYS]:
        raise UsageError(f"{file} 有不认识的键 {'、'.join(unknown)}",
                         remedy=f"可用：{'、'.join(_LAB_KEYS)}")  # fmt: skip
    return content
