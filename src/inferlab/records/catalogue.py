"""All records of this clone, and finding one by what the reader types."""

from pathlib import Path

from inferlab.errors import LabError, UsageError
from inferlab.records import store
from inferlab.records.schema import Record
from inferlab.repository import root


def places() -> tuple[Path, Path]:
    """Where records lie: those that came with the book, and this clone's own."""
    return root() / "results", root() / ".lab" / "records"


def all_records() -> tuple[list[tuple[Path, Record]], list[str]]:
    """Every readable record, oldest first, and one line for each file that is none."""
    found, bad = [], []
    for path in (path for place in places() for path in sorted(place.rglob("*.json"))):
        try:
            found.append((path, store.load(path)))
        except LabError as error:
            bad.append(error.message)
    return sorted(found, key=lambda each: each[1].created), bad


def find_record(text: str) -> tuple[Path, Record]:
    """The record that `text` names: a file, `latest`, an experiment, or the end of its path.

    Raises:
        UsageError: none or several.
        LabError: the file is no record.
    """
    if Path(text).is_file():
        return Path(text), store.load(Path(text))
    records, _ = all_records()
    if text == "latest" and records:
        return records[-1]
    wanted = text.removesuffix(".json")
    found = [(path, record) for path, record in records
             if f"/{path.with_suffix('').as_posix()}".endswith(f"/{wanted}")]  # fmt: skip
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"没有记录 {text!r}", remedy="./lab records list 列出全部")
    names = "、".join(short_name(path) for path, _ in found[:4])
    raise UsageError(f"{text!r} 对应 {len(found)} 份记录", remedy=f"写全一些：{names}")


def short_name(path: Path) -> str:
    """`device/lab/experiment` for a record in its place, else the path."""
    for place in places():
        if path.is_relative_to(place):
            return path.relative_to(place).with_suffix("").as_posix()
    return str(path)
