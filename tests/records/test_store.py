"""Records on disk: whole or not at all, and clear words for what cannot be read."""

import pytest

from inferlab.errors import LabError
from inferlab.records import store
from inferlab.repository import root


@pytest.mark.parametrize(
    ("device", "folder"),
    [("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
     ("Intel(R) Xeon(R) Processor @ 2.50GHz", "intel-xeon"), ("AMD EPYC", "amd-epyc")],
)  # fmt: skip
def test_a_device_has_a_plain_folder_name(device, folder):
    assert store.slug(device) == folder


def test_a_record_survives_the_round_trip(tmp_path):
    record = store.find("chapter03", "layer", "h200")
    path = store.save(record, tmp_path)
    assert path == tmp_path / "h200" / "chapter03" / "layer.json"
    assert store.load(path) == record
    assert [each.name for each in path.parent.iterdir()] == ["layer.json"]


def test_every_committed_record_loads():
    paths = sorted((root() / "results").glob("*/*/*.json"))
    assert len(paths) >= 3
    for path in paths:
        assert store.path_of(store.load(path)) == path


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    record = store.find("chapter03", "ceilings", "h200")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fdopen", full)
    with pytest.raises(LabError, match="No space left"):
        store.save(record, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", ["{broken", "{}", '{"lab": 1}'])
def test_what_is_no_record_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(LabError, match=r"x\.json"):
        store.load(path)
    with pytest.raises(LabError, match="missing"):
        store.load(tmp_path / "missing.json")
