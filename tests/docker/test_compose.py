"""Chapter 3 in containers, by each Compose that this machine has: `docker compose` v2 and 1.29."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from compose_lab import CPU_FILES, GPU_FILES, TOKEN, Lab, mounts, published

pytestmark = pytest.mark.docker


def ask(url: str, body: dict | None = None) -> tuple[int, dict]:
    """Status and JSON answer of one request; the body of an error is not read."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


@pytest.mark.parametrize("files", [GPU_FILES, CPU_FILES], ids=["gpu", "cpu"])
def test_every_port_is_bound_to_loopback(compose: tuple[str, ...], files: tuple[str, ...]) -> None:
    services = Lab(compose, files).config()["services"]
    assert published(services["engine"]) == [("127.0.0.1", 8000)]
    assert published(services["lab"]) == [("127.0.0.1", 8888)]


def test_gpu_file_asks_for_the_nvidia_runtime_and_one_gpu(compose: tuple[str, ...]) -> None:
    services = Lab(compose, GPU_FILES).config()["services"]
    for name in ("engine", "lab"):
        assert services[name]["runtime"] == "nvidia"
        assert services[name]["environment"]["NVIDIA_VISIBLE_DEVICES"] == "0"
    assert services["engine"]["command"][0] == "Qwen/Qwen3-8B"
    assert "/lab/engine/vllm.yaml" in services["engine"]["command"]


def test_cpu_override_needs_no_gpu_and_no_download(compose: tuple[str, ...]) -> None:
    services = Lab(compose).config()["services"]
    for name in ("engine", "lab"):
        assert services[name]["runtime"] == "runc"
        assert "deploy" not in services[name]
    assert services["engine"]["command"][0] == "/models/lab-python-8m"
    assert "/lab/engine/vllm-cpu.yaml" in services["engine"]["command"]


@pytest.mark.slow
def test_a_completion_from_outside(running: Lab) -> None:
    body = {"model": "lab", "prompt": "def add(a, b):\n", "max_tokens": 8, "temperature": 0}
    status, answer = ask(f"http://127.0.0.1:{running.api_port}/v1/completions", body)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.slow
def test_a_completion_from_inside_the_network(running: Lab) -> None:
    program = (
        "import json, os, urllib.request as u\n"
        "body = json.dumps({'model': 'lab', 'prompt': 'import', 'max_tokens': 4}).encode()\n"
        "url = os.environ['LAB_API_URL'] + '/v1/completions'\n"
        "request = u.Request(url, body, {'Content-Type': 'application/json'})\n"
        "print(json.load(u.urlopen(request, timeout=60))['usage']['completion_tokens'])\n"
    )
    assert running.run("exec", "-T", "lab", "python", "-c", program).strip() == "4"


@pytest.mark.slow
def test_jupyterlab_answers_only_with_the_token(running: Lab) -> None:
    contents = f"http://127.0.0.1:{running.jupyter_port}/api/contents"
    wait_until(lambda: ask(contents)[0] == 403, timeout_s=60)
    assert ask(f"{contents}?token=wrong")[0] == 403
    status, answer = ask(f"{contents}?token={TOKEN}")
    assert status == 200
    assert {"notebooks", "code", "models"} <= {entry["name"] for entry in answer["content"]}


@pytest.mark.slow
def test_notebooks_have_the_library_and_the_engines_torch(running: Lab) -> None:
    program = "import inferlab, numpy, torch; print(inferlab.__file__, torch.__version__)"
    library, torch_version = running.run("exec", "-T", "lab", "python", "-c", program).split()
    assert library == "/workspace/src/inferlab/__init__.py"
    assert torch_version == "2.13.0+cpu"


@pytest.mark.slow
def test_jupyterlab_runs_as_the_owner_of_the_clone(running: Lab) -> None:
    program = "import os; print(os.stat('/workspace').st_uid, os.stat('/proc/1').st_uid)"
    clone, jupyter = running.run("exec", "-T", "lab", "python", "-c", program).split()
    assert jupyter == clone


@pytest.mark.slow
def test_the_engine_sees_models_and_configuration_read_only(running: Lab) -> None:
    engine = next(name for name in running.containers() if "engine" in name)
    writable = mounts(engine)
    assert not writable["/models"]
    assert not writable["/lab/engine"]


@pytest.mark.slow
def test_an_engine_that_cannot_start_is_reported_at_once(
    compose: tuple[str, ...], docker_daemon: None, running: Lab
) -> None:
    lab = Lab(compose, project_suffix="-broken", settings={"LAB_CPU_MODEL": "/models/absent"})
    try:
        started = time.monotonic()
        with pytest.raises(AssertionError, match=r"unhealthy|exited"):
            lab.run("up", "-d")
        assert time.monotonic() - started < 60
    finally:
        lab.run("down", "-v")
    assert not lab.containers()


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll once a second until the condition holds; connection errors count as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(1)
