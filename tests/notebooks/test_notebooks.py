"""Notebooks: their committed form, and a fresh run by papermill and nbval on a real engine."""

import os
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from inferlab.book.chapter07_lab import deployed
from inferlab.book.notebooks import CELL_TIMEOUT_S, execute, normalised, problems, with_palette
from inferlab.plots.style import new_figure
from inferlab.repository import root

WHOLE_S = 6 * 60  # without a GPU, on two cores
LARGEST_BYTES = 600_000
NOTEBOOKS = sorted((root() / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS


@EACH
def test_the_committed_form_is_canonical(path: Path):
    assert problems(path) == []
    notebook = nbformat.read(path, as_version=4)
    assert normalised(nbformat.read(path, as_version=4)) == notebook


@EACH
def test_a_notebook_stays_small_enough_to_read_on_the_web(path: Path):
    assert path.stat().st_size < LARGEST_BYTES


def test_a_picture_keeps_its_looks_with_a_palette():
    figure, axes = new_figure(width=5, height=3)
    axes.imshow(np.arange(400).reshape(20, 20), cmap="PuOr")
    axes.set_title("256 种颜色")
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    full = b64encode(drawn.getvalue()).decode()
    small = with_palette(full)
    assert len(small) < len(full) / 2
    assert with_palette(small) == small
    before, after = (
        np.asarray(Image.open(BytesIO(b64decode(png))).convert("RGB"), dtype=float)
        for png in (full, small)
    )
    assert abs(before - after).mean() < 1
    assert abs(before - after).max() < 32


def test_a_bad_form_is_named(tmp_path: Path):
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("!ls /root/models\n# NBVAL_CHECK_OUTPUT because")
    notebook.cells = [cell]
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    found = " ".join(problems(tmp_path / "bad.ipynb"))
    for wrong in ("kernelspec", "bare !", "no output", "stand alone", "absolute", "not executed"):
        assert wrong in found


@pytest.fixture(scope="module")
def pd_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with deployed("pd", tmp_path_factory.mktemp("pd") / "router.log") as running:
        yield running.url


@pytest.fixture
def address(path: Path, request: pytest.FixtureRequest) -> str:
    """Of what the notebook's lab starts."""
    fixture = "pd_deployment" if path.stem == "chapter07_pd_separation" else "embedded_engine"
    return request.getfixturevalue(fixture)


@pytest.mark.engine
@pytest.mark.slow
@EACH
def test_papermill_runs_it_whole(path: Path, address: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LAB_API_URL", address)
    began = time.monotonic()
    execute(path, tmp_path / path.name)
    assert time.monotonic() - began < WHOLE_S
    assert problems(tmp_path / path.name) == []


@pytest.mark.engine
@pytest.mark.slow
@EACH
def test_nbval_finds_the_same_figures(path: Path, address: str):
    environment = {**os.environ, "LAB_API_URL": address, "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax"]
    options = ["--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT_S}", str(path)]
    done = subprocess.run(
        [*command, *options], cwd=path.parent, env=environment, capture_output=True, text=True
    )
    # After a time-out nbval calls the later cells "xfailed": passes alone prove nothing.
    assert done.returncode == 0 and "xfailed" not in done.stdout, done.stdout[-3000:]
