"""Files that survive an interruption, and read back as what was written."""

import csv
from pathlib import Path

import pyarrow.parquet
import pytest
from gpu_samples import FULL, SPARSE

from inferlab.errors import LabError, UsageError
from inferlab.hardware.sample import FIELD_NAMES
from inferlab.hardware.writers import CsvWriter, JsonlWriter, ParquetWriter, read_jsonl


def test_jsonl_round_trip(tmp_path: Path):
    writer = JsonlWriter(tmp_path / "gpu.jsonl")
    writer.write([FULL, SPARSE])
    writer.close()
    assert read_jsonl(tmp_path / "gpu.jsonl") == [FULL, SPARSE]


def test_jsonl_is_complete_before_it_is_closed_and_is_continued_later(tmp_path: Path):
    path = tmp_path / "gpu.jsonl"
    first = JsonlWriter(path)
    first.write([FULL])
    assert read_jsonl(path) == [FULL]
    first.close()
    second = JsonlWriter(path)
    second.write([SPARSE])
    second.close()
    assert read_jsonl(path) == [FULL, SPARSE]


def test_a_last_line_cut_short_is_left_out(tmp_path: Path):
    path = tmp_path / "gpu.jsonl"
    writer = JsonlWriter(path)
    writer.write([FULL, SPARSE])
    writer.close()
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert read_jsonl(path) == [FULL]
    path.write_text("nonsense\n" + whole)
    with pytest.raises(LabError, match="第 1 行"):
        read_jsonl(path)


def test_csv_has_a_column_a_field_and_empty_cells_for_what_is_missing(tmp_path: Path):
    path = tmp_path / "gpu.csv"
    writer = CsvWriter(path)
    writer.write([FULL, SPARSE])
    writer.close()
    with path.open() as file:
        full, sparse = csv.DictReader(file)
    assert tuple(full) == FIELD_NAMES
    assert full["throttle_reasons"] == "sw_power_cap;sync_boost"
    assert float(full["energy_j"]) == FULL.energy_j
    assert sparse["power_w"] == ""


def test_csv_is_continued_under_one_header_but_never_mixed(tmp_path: Path):
    path = tmp_path / "gpu.csv"
    for _ in range(2):
        writer = CsvWriter(path)
        writer.write([FULL])
        writer.close()
    assert len(path.read_text().splitlines()) == 3
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="表头不同"):
        CsvWriter(path)
    assert path.read_text() == "a,b\n1,2\n"


def test_parquet_round_trip_appears_only_when_it_is_complete(tmp_path: Path):
    path = tmp_path / "gpu.parquet"
    writer = ParquetWriter(path)
    writer.write([FULL, SPARSE])
    assert not path.exists()
    writer.close()
    full, sparse = pyarrow.parquet.read_table(path).to_pylist()
    assert full == {**FULL.row(), "throttle_reasons": "sw_power_cap;sync_boost"}
    assert sparse["power_w"] is None
    assert [each.name for each in tmp_path.iterdir()] == ["gpu.parquet"]


@pytest.mark.parametrize("writer", [CsvWriter, JsonlWriter, ParquetWriter])
def test_a_folder_that_does_not_exist_is_a_clear_error(writer, tmp_path: Path):
    with pytest.raises(UsageError, match="无法写入"):
        writer(tmp_path / "missing" / "gpu")
