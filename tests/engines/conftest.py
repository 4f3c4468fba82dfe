"""A root of its own for tests that start engines: own state, own ports, the same environments."""

import shutil
from pathlib import Path

import pytest

from inferlab import repository
from inferlab.engines.choose import Choice, LabDefaults, Wish, choose
from inferlab.engines.machine import Machine
from inferlab.engines.ports import free_port
from inferlab.settings import Settings


@pytest.fixture
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository root with its own `.lab/` and a `code/` that the test may change."""
    here = repository.root()
    for name in ("models", "notebooks", "requirements", ".engines", "versions.toml"):
        (tmp_path / name).symlink_to(here / name)
    shutil.copytree(here / "code", tmp_path / "code", ignore=shutil.ignore_patterns(".env"))
    monkeypatch.setenv("INFERLAB_ROOT", str(tmp_path))
    repository.root.cache_clear()
    yield tmp_path
    repository.root.cache_clear()


@pytest.fixture
def settings() -> Settings:
    """The reader's settings on free ports."""
    values = Settings.load().__dict__
    return Settings(**{**values, "api_port": free_port(), "jupyter_port": free_port()})


@pytest.fixture
def cpu_choice(own_root: Path, settings: Settings) -> Choice:
    """Chapter 3 on this machine's CPU, natively."""
    wish = Wish(engine="cpu", docker=False)
    return choose(Machine.probe(), settings, wish, LabDefaults.of("chapter03"))
