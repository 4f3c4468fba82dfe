"""What travels in a bundle: the lock file's packages, less what the host has and never needs."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inferlab.engines.bundle.target import Target, normal
from inferlab.errors import UsageError
from inferlab.repository import root

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")


@dataclass(frozen=True)
class Contents:
    """Packages of a bundle.

    Attributes:
        pins: what travels, as `name==version`.
        left_out: name → why, for the manifest.
        package: what `verify` imports.
    """

    pins: tuple[str, ...]
    left_out: dict[str, str]
    package: str


def contents(
    engine: str, target: Target, lab_pins: Sequence[str], accept: Iterable[str] = ()
) -> Contents:
    """Decide what travels.

    Args:
        engine: `vllm` or `sglang`.
        lab_pins: the lab's own packages, resolved to fit the engine's lock.
        accept: packages of which any version that the host has will do.

    Raises:
        UsageError: no such engine.
    """
    rules = _rules()
    if engine not in rules["engines"]:
        raise UsageError(f"没有引擎 {engine!r}", remedy=f"可选：{'、'.join(rules['engines'])}")
    lock = lock_file(engine).read_text(encoding="utf-8").splitlines()
    pinned = {normal(name): version for name, version in _pins([*lab_pins, *lock])}
    never = {normal(each["name"]): each["why"] for each in rules["packages"]}
    accepted = {normal(name) for name in accept}
    left_out = {
        name: reason
        for name, version in pinned.items()
        if (reason := never.get(name) or _host_reason(name, version, target, accepted, rules))
    }
    pins = tuple(f"{name}=={pinned[name]}" for name in sorted(pinned.keys() - left_out.keys()))
    return Contents(pins, left_out, rules["engines"][engine]["package"])


def lock_file(engine: str) -> Path:
    """The engine's lock file."""
    return root() / _rules()["engines"][engine]["lock"]


def lab_packages() -> list[str]:
    """What the lab itself needs on a GPU host; names without versions."""
    return list(_rules()["lab"])


def file_rules() -> list[dict[str, Any]]:
    """What is deleted from unpacked packages, as contents.yaml says it."""
    return list(_rules()["files"])


def remove_unneeded_files(folder: Path, target: Target) -> dict[str, int]:
    """Delete from unpacked packages what the target never loads; pattern → bytes removed."""
    majors = {major for major, _ in target.gpus}
    removed = {}
    for rule in file_rules():
        needed_by = rule.get("unless_gpu")
        if needed_by and (not majors or needed_by in majors):
            continue
        matches = (path for path in folder.glob(rule["pattern"]) if path.exists())
        found = [path for path in matches if path.name != rule.get("but")]
        removed[rule["pattern"]] = sum(_size(path) for path in found)
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed


def _host_reason(
    name: str, version: str, target: Target, accepted: set[str], rules: dict[str, Any]
) -> str:
    has = target.packages.get(name)
    if not has or name in rules["never_from_host"]:
        return ""
    if has == version:
        return f"主机已有 {has}"
    if name in accepted:
        return f"用主机的 {has}（锁定的是 {version}）"
    provided = name.startswith(tuple(rules["host_provides"]))
    if provided and has.split(".")[0] == version.split(".")[0]:
        return f"用主机的 {has}（锁定的是 {version}，同一主版本）"
    return ""


def _pins(lines: Iterable[str]) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for line in lines if (found := _PIN.match(line.strip()))]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())


def _rules() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("contents.yaml").read_text(encoding="utf-8"))
