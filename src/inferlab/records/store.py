"""Records on disk: `results/<device>/<lab>/<experiment>.json`, written whole or not at all."""

import json
import os
import re
import tempfile
from pathlib import Path

from pydantic import ValidationError

from inferlab.errors import LabError
from inferlab.records.schema import Record
from inferlab.repository import root

# A JSON list of plain numbers, nulls or short words, spread over lines by json.dumps.
_NUMBER_LIST = re.compile(r'\[\n(?:\s*(?:-?[\d.eE+-]+|null|"\w*"),?\n)+\s*\]')


def slug(device: str) -> str:
    """Folder name of a device: `NVIDIA H200` → `h200`, `AMD EPYC` → `amd-epyc`."""
    bare = re.sub(r"^NVIDIA\s+", "", device, flags=re.IGNORECASE)
    bare = re.sub(r"\((R|TM)\)|@.*$|CPU|Processor", "", bare, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", bare.lower()).strip("-")


def results_folder() -> Path:
    """Where published records lie."""
    return root() / "results"


def path_of(record: Record, folder: Path | None = None) -> Path:
    """Where a record belongs; `folder` replaces the repository's `results/`."""
    return place_of(record.device, record.lab, record.experiment, folder)


def place_of(device: str, lab: str, experiment: str, folder: Path | None = None) -> Path:
    """Where a device's record of an experiment belongs, whether there is one or not."""
    return (folder or results_folder()) / slug(device) / lab / f"{experiment}.json"


def save(record: Record, folder: Path | None = None) -> Path:
    """Write a record to its place through a temporary file, so that no reader meets half of one.

    Raises:
        LabError: the disk is full or not writable; nothing is left behind.
    """
    return write(record, path_of(record, folder))


def write(record: Record, target: Path) -> Path:
    """Write a record to a file of its own, as `save` does.

    Raises:
        LabError: the disk is full or not writable; nothing is left behind.
    """
    text = as_text(record)
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except OSError as error:
        raise LabError(
            f"写不了记录 {target}（{error.strerror}）", remedy="检查磁盘空间与权限"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    return target


def as_text(record: Record) -> str:
    """The record as JSON; numbers in a list share a line, so that files stay short."""
    text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=1)
    return _NUMBER_LIST.sub(lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def keep(record: Record, target: Path) -> tuple[Path, str]:
    """Write a measured record, and never lose it: other places are tried when the first is full.

    Returns:
        where it lies, and why it is not at `target` (empty when it is). A record that had to go
        elsewhere says so in `partial`.

    Raises:
        LabError: no place takes it.
    """
    try:
        return write(record, target), ""
    except LabError as error:
        problem = error
    kept = record.model_copy(update={"partial": record.partial or problem.message})
    for folder in (root() / ".lab" / "records", Path(tempfile.gettempdir()), Path.home()):
        elsewhere = folder / f"{record.experiment}.json"
        if elsewhere.parent == target.parent:
            continue
        try:
            return write(kept, elsewhere), problem.message
        except LabError:
            continue
    raise problem


def load(path: Path) -> Record:
    """Read one record.

    Raises:
        LabError: no such file, or it is not a record of this schema.
    """
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(
            f"读不到记录 {path}（{error.strerror}）", remedy="先运行 ./lab record"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LabError(
            f"{path} 不是有效的记录（{place}：{first['msg']}）", remedy="重新测量这一项"
        ) from error


def find(lab: str, experiment: str, device: str) -> Record:
    """The record of one experiment on one device (`h200`, or the device's full name)."""
    return load(place_of(device, lab, experiment))


def devices(lab: str, experiment: str) -> list[str]:
    """Devices that have a record of the experiment, by folder name."""
    results = root() / "results"
    return sorted(
        path.relative_to(results).parts[0] for path in results.glob(f"*/{lab}/{experiment}.json")
    )
