"""`./lab up chapter07/pd` in containers, on a CPU: two engines, the router, JupyterLab."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from compose_lab import Lab, compose_commands

from inferlab.engines import lifecycle, session
from inferlab.engines.choose import LabDefaults, Wish, choose
from inferlab.engines.lifecycle import Running
from inferlab.engines.machine import Machine
from inferlab.engines.router.client import paths
from inferlab.errors import LabError
from inferlab.load import Endpoint, RequestSpec, run_closed_loop
from inferlab.measure.kv_transfer_check import check, transports
from inferlab.repository import root
from inferlab.settings import Settings

pytestmark = [pytest.mark.docker, pytest.mark.slow]
CHAPTER = "chapter07/pd"


@contextmanager
def up(lab: Lab, session_file: pytest.TempPathFactory, model: str = "") -> Iterator[Running]:
    """The chapter, started as the command starts it, beside any lab that runs; gone afterwards."""
    file = session_file.mktemp("session") / "session.json"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.environment().items():
            patch.setenv(name, value)
        patch.setattr(session, "_session_file", lambda: file)
        machine, settings = Machine.probe(), Settings.load()
        wish = Wish(engine="cpu", docker=True)
        choice = choose(machine, settings, wish, LabDefaults.of(CHAPTER))
        try:
            yield lifecycle.start(
                CHAPTER, replace(choice, model=model or choice.model), settings, machine,
                say=print, on_progress=lambda *_: None,
            )  # fmt: skip
        finally:
            lifecycle.down()
            lab.run("down", "-v")
    assert not lab.containers()


def a_lab(suffix: str) -> Lab:
    told = {"UCX_PROTO_INFO": "y", "UCX_LOG_LEVEL": "info"}
    command = next(iter(compose_commands().values()))
    return Lab(command, project_suffix=suffix, settings=told, chapter=root() / "code" / CHAPTER)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return a_lab("-pd")


@pytest.fixture(scope="module")
def running(
    engine_image: None, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with up(lab, tmp_path_factory) as found:
        yield found


def test_a_request_goes_through_both_engines(running: Running) -> None:
    endpoint = Endpoint(running.session.api_url)
    [sample] = run_closed_loop(endpoint, [RequestSpec(list(range(5, 205)), 8, ignore_eos=True)], 1)
    assert sample.ok and sample.output_tokens == 8
    [last] = paths(running.session.api_url, 1)
    assert (last["prefill"], last["decode"]) == ("http://prefill:8000", "http://decode:8000")
    assert running.report.kv_cache_tokens


def test_kv_caches_are_moved_from_one_containers_memory_to_the_others(
    running: Running, lab: Lab
) -> None:
    said = ""
    for _ in range(5):  # the router's health check is a request too, and falls in between at times
        said = lab.run("exec", "-T", "lab", "python", "scripts/kv_transfer_check.py")
        assert "✓ 每个请求的 KV 都传了" in said
        if "传了 5 次 KV" in said:
            break
    assert "传了 5 次 KV" in said
    seen = transports(lifecycle.engine_log(running.session))
    assert [each.what for each in seen] == ["cma/memory"]


def test_outside_the_containers_the_check_says_where_to_run_it(running: Running) -> None:
    with pytest.raises(LabError, match="exec -T lab"):
        check(running.session.api_url, prompt=16, requests=1)


def test_a_worker_that_cannot_start_is_the_cause_that_is_told(
    engine_image: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        pytest.raises(LabError, match="引擎没有启动：没有这个模型"),
        up(a_lab("-pd-broken"), tmp_path_factory, model="/models/absent"),
    ):
        pass
