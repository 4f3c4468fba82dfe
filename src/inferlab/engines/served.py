"""What a running engine serves: its name for requests, and the shape of the model behind it."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.errors import LabError
from inferlab.repository import root


@dataclass(frozen=True)
class ServedModel:
    """A model that an endpoint offers.

    Attributes:
        name: to be given as `model` in requests.
        source: folder or Hugging Face id that the engine loaded.
        max_model_len: longest request in tokens.
    """

    name: str
    source: str
    max_model_len: int

    def shape(self, options: Mapping[str, Any]) -> ModelShape:
        """The model's shape, from its own folder, the repository's copy, or `models/configs/`.

        Args:
            options: the engine's configuration, whose `dtype` counts; no endpoint tells it.

        Raises:
            LabError: no `config.json` of this model is at hand, or the `dtype` is unknown.
        """
        return self._checkpoint().computed_in(str(options.get("dtype", "auto")))

    def _checkpoint(self) -> ModelShape:
        last = self.source.rstrip("/").split("/")[-1]
        places = [Path(self.source), root() / "models" / last]
        folder = next((place for place in places if (place / "config.json").is_file()), None)
        if folder:
            return ModelShape.from_config(folder)
        known = root() / "models" / "configs" / f"{last.lower()}.json"
        if known.is_file():
            return ModelShape.from_config(known)
        raise LabError(
            f"手头没有 {self.source} 的 config.json",
            remedy=f"把它放到 models/configs/{last.lower()}.json",
        )


def served_model(base_url: str, *, timeout_s: float = 5.0) -> ServedModel:
    """The first model of an OpenAI-compatible endpoint, as vLLM and SGLang describe it.

    Raises:
        LabError: nothing answers there.
    """
    try:
        with urllib.request.urlopen(f"{base_url}/v1/models", timeout=timeout_s) as response:
            first = json.load(response)["data"][0]
    except (urllib.error.URLError, OSError, ValueError, LookupError) as error:
        raise LabError(
            f"{base_url} 没有应答（{error}）", remedy="先运行 ./lab up chapter03"
        ) from error
    return ServedModel(first["id"], first.get("root", first["id"]), first.get("max_model_len", 0))
