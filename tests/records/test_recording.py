"""Experiments: which a device runs, in which order; and one really run on this machine's CPU."""

from pathlib import Path

import pytest
from lab_folders import BENCH, lab_folder

from inferlab.cli import record
from inferlab.errors import LabError, UsageError
from inferlab.hardware.host import GpuInfo, HostInfo
from inferlab.records import recording
from inferlab.records.recording import experiments, measure_here, record_lab
from inferlab.repository import root, state_dir


def test_a_cpu_runs_what_needs_no_gpu_quickest_first():
    assert [each.id for each in experiments("chapter03", "cpu")] == ["ceilings", "layer"]
    on_gpu = experiments("chapter03", "cuda")
    assert [each.id for each in on_gpu] == ["ceilings", "layer", "gpu_load"]
    assert [each.minutes for each in on_gpu] == sorted(each.minutes for each in on_gpu)


def test_the_shape_measured_depends_on_the_device_and_exists():
    for device, model in (("cpu", "qwen3-0.6b"), ("cuda", "qwen3-8b")):
        [layer] = [each for each in experiments("chapter03", device) if each.id == "layer"]
        assert layer.model.endswith(f"{model}.json")
        assert (root() / layer.model).is_file()


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, "./lab record chapter05"),
        ({"only": "graphs", "repeats": 4}, "./lab record chapter05 --only graphs --repeats 4"),
        ({"model": "Qwen/Qwen3-4B"}, "./lab record chapter05 --model Qwen/Qwen3-4B"),
        ({"model": str(root() / "models")}, "./lab record chapter05 --model …"),
    ],
)
def test_a_record_says_the_command_that_measures_it_again(
    given: dict, command: str, monkeypatch: pytest.MonkeyPatch
):
    said: dict = {}
    monkeypatch.setattr(recording, "record_lab", lambda lab, **how: said.update(how))
    record.record("chapter05", **given)
    assert said["command"] == command


@pytest.mark.engine
def test_an_unknown_experiment_is_named():
    with pytest.raises(UsageError, match="nonsense"):
        record_lab("chapter03", only="nonsense")


def test_what_needs_more_gpus_than_there_are_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    known = {"name": "NVIDIA H200", "memory_bytes": 141 * 2**30}
    gpus = tuple(GpuInfo.model_construct(index=index, **known) for index in range(4))
    monkeypatch.setattr(recording, "describe_host", lambda: HostInfo.model_construct(gpus=gpus))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    said: list[str] = []
    with pytest.raises(LabError, match="没有写出任何记录"):
        record_lab("chapter07/pd", only="split_2_2_chat", folder=tmp_path, say=said.append)
    assert said == ["跳过 split_2_2_chat：要 4 块 GPU，这里有 2 块"]


def test_an_engine_that_has_no_environment_here_fails_its_own_experiments(tmp_path: Path):
    lab = lab_folder(tmp_path / "lab", BENCH | {"engines": ["sglang"]}, engines=("sglang",))
    said: list[str] = []
    with pytest.raises(LabError, match="没有写出任何记录（失败：bench）"):
        record_lab("small", lab_folder=lab, folder=tmp_path, say=said.append)
    assert said == ["bench 失败：没有引擎环境 sglang-cpu → 有的是 sglang-cuda、vllm-cpu、vllm-cuda"]


@pytest.mark.engine
@pytest.mark.slow
def test_the_ceilings_of_this_machine_are_measured_and_kept():
    record = measure_here("chapter03", "ceilings", repeats=2)
    assert record.software.torch
    assert all(figure.mean > 0 and len(figure.values) == 2 for figure in record.figures)
    assert {"matmul", "device_copy", "device_read"} <= {figure.name for figure in record.figures}
    assert list((state_dir() / "records").glob("*/chapter03/ceilings.json"))
