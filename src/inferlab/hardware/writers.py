"""Samples to a file: CSV and JSONL line by line, Parquet through a temporary file that is renamed
at the end."""

import csv
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from inferlab.errors import LabError, UsageError
from inferlab.hardware.sample import FIELD_NAMES, GpuSample

PARQUET_GROUP_ROWS = 2000
SEPARATOR = ";"
INTEGERS = {"index", "memory_used_bytes", "sm_clock_mhz", "memory_clock_mhz", "temperature_c"}
STRINGS = {"phase", "throttle_reasons"}


class SampleWriter(Protocol):
    """Takes samples as they come; after `close()` the file is complete."""

    def write(self, samples: Sequence[GpuSample]) -> None: ...
    def close(self) -> None: ...


class CsvWriter:
    """Appends a row a sample; `throttle_reasons` are joined by `;`, a missing value is an empty
    cell.

    What was written is flushed at once, so an interrupted recording keeps every row. An existing
    file is continued when its header is the same.

    Raises:
        UsageError: the file holds something else, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        _refuse_other_header(path)
        self._file = _open_to_append(path)
        self._rows = csv.DictWriter(self._file, FIELD_NAMES, lineterminator="\n")
        if self._file.tell() == 0:
            self._rows.writeheader()

    def write(self, samples: Sequence[GpuSample]) -> None:
        self._rows.writerows({**each.row(), **_joined(each)} for each in samples)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class JsonlWriter:
    """Appends one JSON object a line, flushed at once; missing values are `null`.

    Raises:
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open_to_append(path)

    def write(self, samples: Sequence[GpuSample]) -> None:
        self._file.writelines(json.dumps(each.row()) + "\n" for each in samples)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ParquetWriter:
    """Writes row groups to `FILE.partial`, which becomes `FILE` when it is closed. Needs pyarrow.

    Raises:
        LabError: pyarrow is not installed.
        UsageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            remedy = "pip install pyarrow，或改用 --jsonl"
            raise LabError("写 Parquet 需要 pyarrow", remedy=remedy) from None
        self._arrow = pyarrow
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        self._schema = pyarrow.schema([(name, self._type(name)) for name in FIELD_NAMES])
        self._pending: list[dict[str, Any]] = []
        try:
            self._file = pyarrow.parquet.ParquetWriter(self._partial, self._schema)
        except OSError as error:
            raise _cannot_open(path, error) from None

    def _type(self, name: str) -> Any:
        if name in STRINGS:
            return self._arrow.string()
        return self._arrow.int64() if name in INTEGERS else self._arrow.float64()

    def write(self, samples: Sequence[GpuSample]) -> None:
        self._pending += [{**each.row(), **_joined(each)} for each in samples]
        if len(self._pending) >= PARQUET_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(self._arrow.Table.from_pylist(self._pending, self._schema))
        self._pending = []

    def close(self) -> None:
        if self._pending:
            self._flush()
        self._file.close()
        self._partial.replace(self._path)


def read_jsonl(path: Path) -> list[GpuSample]:
    """Samples from a JSONL file, as `JsonlWriter` wrote them; a last line cut short is left out.

    Raises:
        LabError: a line other than the last is not a sample.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            samples.append(_from_row(json.loads(line)))
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise LabError(f"{path} 第 {number} 行不是采样记录：{error}") from None
    return samples


def _from_row(row: dict[str, Any]) -> GpuSample:
    reasons = row.get("throttle_reasons")
    return GpuSample(**{**row, "throttle_reasons": None if reasons is None else tuple(reasons)})


def _joined(sample: GpuSample) -> dict[str, str | None]:
    reasons = sample.throttle_reasons
    return {"throttle_reasons": None if reasons is None else SEPARATOR.join(reasons)}


def _refuse_other_header(path: Path) -> None:
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        first = file.readline().strip()
        if first and first != ",".join(FIELD_NAMES):
            raise UsageError(f"{path} 已存在，且表头不同", remedy="换一个文件名")


def _open_to_append(path: Path) -> io.TextIOWrapper:
    try:
        file = path.open("a", encoding="utf-8", newline="")
    except OSError as error:
        raise _cannot_open(path, error) from None
    file.seek(0, os.SEEK_END)
    return file


def _cannot_open(path: Path, error: OSError) -> UsageError:
    return UsageError(f"无法写入 {path}：{error.strerror}", remedy="检查目录是否存在、是否可写")
