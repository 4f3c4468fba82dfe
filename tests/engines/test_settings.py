"""`.env`, overlaid by the environment."""

from pathlib import Path

import pytest

from inferlab.errors import UsageError
from inferlab.settings import Settings, read_env_file


def test_an_env_file_may_be_quoted_commented_and_exported(tmp_path: Path):
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\nLAB_MODEL='Qwen/Qwen3-4B'\nexport LAB_API_PORT=9000\n"
        'HF_TOKEN="a b"\nHF_ENDPOINT=https://mirror.example # the mirror\n\nLAB_JUPYTER_TOKEN=\n'
    )
    assert read_env_file(file) == {
        "LAB_MODEL": "Qwen/Qwen3-4B",
        "LAB_API_PORT": "9000",
        "HF_TOKEN": "a b",
        "HF_ENDPOINT": "https://mirror.example",
        "LAB_JUPYTER_TOKEN": "",
    }


def test_no_env_file_means_no_values(tmp_path: Path):
    assert read_env_file(tmp_path / ".env") == {}


def test_empty_values_are_defaults():
    assert Settings.from_values({"LAB_API_PORT": "", "LAB_MODEL": " "}) == Settings()


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("LAB_API_PORT=9000\nLAB_JUPYTER_PORT=9001\n")
    monkeypatch.setattr("inferlab.settings.root", lambda: tmp_path)
    settings = Settings.load({"LAB_API_PORT": "9100"})
    assert (settings.api_port, settings.jupyter_port) == (9100, 9001)


@pytest.mark.parametrize("value", ["80o0", "0", "70000", "-1"])
def test_a_port_must_be_a_port(value: str):
    with pytest.raises(UsageError, match="LAB_API_PORT"):
        Settings.from_values({"LAB_API_PORT": value})


@pytest.mark.parametrize(("value", "wanted"), [("True", True), ("1", True), ("False", False)])
def test_modelscope_is_a_switch(value: str, wanted: bool):
    assert Settings.from_values({"VLLM_USE_MODELSCOPE": value}).use_modelscope is wanted
