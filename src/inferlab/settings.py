"""The reader's settings: `.env` at the repository's root, overlaid by the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferlab.errors import UsageError
from inferlab.repository import root

DEFAULT_API_PORT = 8000
DEFAULT_JUPYTER_PORT = 8888


@dataclass(frozen=True)
class Settings:
    """The settings that Python reads (the compose files read more); "" means "use the default"."""

    model: str = ""
    api_port: int = DEFAULT_API_PORT
    jupyter_port: int = DEFAULT_JUPYTER_PORT
    jupyter_token: str = ""
    hf_endpoint: str = ""
    hf_token: str = ""
    use_modelscope: bool = False
    model_cache: str = ""
    vllm_cpu_image: str = ""
    pip_index_url: str = ""
    torch_index_url: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read `.env`, then let the environment win.

        Args:
            environ: the environment to overlay; the process's own when not given.

        Raises:
            UsageError: a port is not a number between 1 and 65535.
        """
        found = {**read_env_file(root() / ".env"), **(os.environ if environ is None else environ)}
        return cls.from_values(found)

    @classmethod
    def from_values(cls, values: Mapping[str, str]) -> "Settings":
        """The settings that `values` (names as in `.env`) describe; empty values count as unset."""

        def text(name: str) -> str:
            return values.get(name, "").strip()

        return cls(
            model=text("LAB_MODEL"),
            api_port=_port("LAB_API_PORT", text("LAB_API_PORT"), DEFAULT_API_PORT),
            jupyter_port=_port("LAB_JUPYTER_PORT", text("LAB_JUPYTER_PORT"), DEFAULT_JUPYTER_PORT),
            jupyter_token=text("LAB_JUPYTER_TOKEN"),
            hf_endpoint=text("HF_ENDPOINT"),
            hf_token=text("HF_TOKEN"),
            use_modelscope=text("VLLM_USE_MODELSCOPE").lower() in {"1", "true", "yes"},
            model_cache=text("LAB_MODEL_CACHE"),
            vllm_cpu_image=text("LAB_VLLM_CPU_IMAGE"),
            pip_index_url=text("LAB_PIP_INDEX_URL"),
            torch_index_url=text("LAB_TORCH_INDEX_URL"),
        )


def read_env_file(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a `.env` file, quotes removed; empty when there is no file."""
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            values[name.strip()] = _unquote(value.strip())
    return values


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.partition(" #")[0].rstrip()


def _port(name: str, value: str, default: int) -> int:
    if not value:
        return default
    if not value.isdigit() or not 1 <= int(value) <= 65535:
        raise UsageError(
            f"{name}={value!r} 不是 1–65535 之间的端口号", remedy=f"在 .env 中改正 {name}"
        )
    return int(value)
