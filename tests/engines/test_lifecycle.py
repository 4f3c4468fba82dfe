"""Joining what runs: an `up` without options accepts it, one with other options does not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from inferlab.engines.choose import Wish
from inferlab.engines.lifecycle import is_alive, join, require_same
from inferlab.engines.processes import ProcessId
from inferlab.engines.session import Session, forget, load, save
from inferlab.errors import LabError
from inferlab.settings import Settings


def session(model: str = "/models/lab-python-8m") -> Session:
    return Session(
        lab="chapter03",
        launcher="native",
        engine="cpu",
        model=model,
        api_port=8000,
        jupyter_port=8888,
        log="/repo/.lab/logs/chapter03-engine.log",
        processes={"engine": ProcessId(7, 1795387909.98)},
    )


@pytest.mark.parametrize(
    "wish", [Wish(), Wish(engine="cpu"), Wish(docker=False), Wish(engine="cpu", docker=False)]
)
def test_the_same_wish_joins_what_runs(wish: Wish):
    assert require_same(session(), "chapter03", wish) is None


def test_the_same_model_may_be_written_as_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    running = session(str(tmp_path / "model"))
    assert require_same(running, "chapter03", Wish(model="./model")) is None


@pytest.mark.parametrize(
    "wish", [Wish(engine="gpu"), Wish(docker=True), Wish(model="Qwen/Qwen3-0.6B")]
)
def test_another_wish_must_stop_it_first(wish: Wish):
    with pytest.raises(LabError, match="配置不同") as caught:
        require_same(session(), "chapter03", wish)
    assert "./lab down" in caught.value.remedy


def test_one_lab_at_a_time():
    with pytest.raises(LabError, match="chapter03 正在运行"):
        require_same(session(), "chapter05", Wish())


def test_a_session_is_written_and_read_whole(own_root: Path):
    save(session())
    assert load() == session()
    forget()
    assert load() is None


def test_a_damaged_session_file_counts_as_none(own_root: Path):
    save(session())
    (own_root / ".lab" / "session.json").write_text("{")
    assert load() is None


def test_workers_that_start_one_after_another_are_running_but_cannot_be_joined_yet():
    me = ProcessId.of(os.getpid())
    half = replace(session(), lab="chapter07/pd", processes={"prefill-0": me})
    assert half.half_started and is_alive(half)
    with pytest.raises(LabError, match="正在先后启动") as refused:
        join(half, Settings(), say=print, on_progress=lambda *_: None)
    assert "./lab down" in refused.value.remedy
    whole = half.with_process("router", ProcessId(7, 1795387909.98))
    assert not whole.half_started
    assert not is_alive(whole), "the router has ended"
    assert not session().half_started
