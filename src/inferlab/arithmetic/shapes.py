"""A language model's shape, read from any Hugging Face `config.json`.

What a family does differently is in `families.py`; this module is the common description.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferlab.arithmetic.feed_forward import FeedForward
from inferlab.arithmetic.matrices import Matrix, dtype_bytes, dtype_name
from inferlab.arithmetic.mixers import Mixer
from inferlab.errors import LabError


@dataclass(frozen=True)
class Layer:
    """One layer: a mixer, a feed-forward part, or both, and its norms' elements."""

    mixer: Mixer | None
    mlp: FeedForward | None
    norms: int

    @property
    def kind(self) -> str:
        """For the reader: such as `GQA ＋ 门控 MLP`."""
        return " ＋ ".join(part.kind for part in (self.mixer, self.mlp) if part)


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only language model, layer by layer.

    Attributes:
        tied_embeddings: the output head is the input embedding, stored once.
        dtype: what it is computed in: at first `bf16` or `fp16`, as vLLM's `--dtype auto` takes it
            (fp32 checkpoints in bf16); `computed_in` gives another.
        weight_format: how the checkpoint stores its weights; differs from `dtype` when quantised.
        position_rows: rows of a learned position table (GPT-2); 0 with rotary positions.
        final_norm: elements of the norm before the head.
        left_out: what the checkpoint has and this shape does not (vision tower, MTP layers).
    """

    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool
    dtype: str
    weight_format: str
    max_position_embeddings: int
    final_norm: int
    position_rows: int = 0
    head_bias: bool = False
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Path | str) -> "ModelShape":
        """The shape that a `config.json` describes.

        Args:
            config: the parsed content, a `config.json`, or a folder that holds one.

        Raises:
            LabError: no such file, not JSON, a field is missing, or the `model_type` is unknown
                (an unknown family is never guessed: the count could be silently wrong).
        """
        from inferlab.arithmetic.families import build_shape

        return build_shape(config if isinstance(config, Mapping) else read_config(Path(config)))

    def computed_in(self, dtype: str) -> "ModelShape":
        """The model under an engine's `--dtype`: activations, KV cache and weights that are not
        quantised follow it. `auto` changes nothing.

        Raises:
            LabError: the dtype is unknown.
        """
        if dtype == "auto":
            return self
        dtype_bytes(dtype)
        name = dtype_name(dtype)
        quantised = self.weight_format != self.dtype
        return replace(self, dtype=name, weight_format=self.weight_format if quantised else name)

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one activation, and of one weight that is not quantised."""
        return dtype_bytes(self.dtype)

    @property
    def head(self) -> Matrix:
        """The output head; with tied embeddings its parameters are the embedding's."""
        return Matrix("lm_head", self.hidden_size, self.vocab_size, self.head_bias)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixers of all layers that have one, in order."""
        return tuple(layer.mixer for layer in self.layers if layer.mixer)

    def layer_kinds(self) -> Counter[str]:
        """How many layers there are of each kind, in the order of first appearance."""
        return Counter(layer.kind for layer in self.layers)


def read_config(path: Path) -> Mapping[str, Any]:
    """The content of a `config.json`, given the file or the folder it lies in.

    Raises:
        LabError: there is no such file, or it holds no JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(
            f"读不到模型配置 {file}（{error.strerror}）", remedy="给出 config.json 或它所在的目录"
        ) from error
    except ValueError as error:
        raise LabError(
            f"{file} 不是合法的 JSON（{error}）", remedy="重新下载 config.json"
        ) from error
    if not isinstance(content, dict):
        raise LabError(f"{file} 不是一个 JSON 对象", remedy="重新下载 config.json")
    return content
