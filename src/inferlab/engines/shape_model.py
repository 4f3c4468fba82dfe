"""Which model an engine loads to be recorded: real weights where they lie here, else a shape alone.

A shape folder has a real architecture's `config.json`, a tokenizer, and no weights; vLLM fills it
with random ones (`--load-format dummy`). Speed does not depend on their values. Nothing is ever
downloaded here.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inferlab.engines.session import write_atomically
from inferlab.errors import UsageError
from inferlab.repository import root, state_dir

TOKENIZER = "lab-python-8m"
# `model_type` → the class in vLLM's model registry; a published config.json names it itself.
ARCHITECTURES = {
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
}


@dataclass(frozen=True)
class RecordedModel:
    """A folder that an engine can load.

    Attributes:
        name: for the record: a hub id, or the folder's own name.
        flags: what the engine must be told besides the folder.
    """

    name: str
    folder: Path
    weights: Literal["real", "random"]
    flags: dict[str, Any] = field(default_factory=dict)


def recorded_model(wished: str, configured: str, default: str) -> RecordedModel:
    """The model to record.

    Args:
        wished: `--model`: a folder, or a hub id whose shape is known; wins when given.
        configured: `LAB_MODEL`; counts where it is a folder with weights.
        default: the lab's own `recorded_model`: a folder below the root, or a hub id.

    Raises:
        UsageError: there is neither such a folder nor such a shape.
    """
    if wished:
        return _model(wished)
    if configured and _has_weights(_folder(configured)):
        return _model(configured)
    return _model(default)


def _model(name: str) -> RecordedModel:
    folder = _folder(name)
    if not folder.is_dir():
        return _shape_only(name)
    if _has_weights(folder):
        return RecordedModel(folder.name, folder.resolve(), "real")
    raise UsageError(
        f"模型目录 {name} 里没有 config.json 和 *.safetensors",
        remedy="指向一个完整的 Hugging Face 格式目录，或写模型名（如 Qwen/Qwen3-8B）",
    )


def _folder(name: str) -> Path:
    """A folder of this machine, or one below the root such as `models/lab-python-8m`."""
    given = Path(name).expanduser()
    return given if given.is_dir() else root() / name


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _shape_only(name: str) -> RecordedModel:
    shape = name.rstrip("/").rpartition("/")[2].lower()
    known = root() / "models" / "configs" / f"{shape}.json"
    if not known.is_file():
        raise UsageError(
            f"没有模型目录 {name}，也没有它的形状 models/configs/{shape}.json",
            remedy="给出模型目录，或 models/configs/ 里有的模型名",
        )
    folder = shape_folder(known, state_dir() / "shapes" / shape)
    return RecordedModel(name, folder, "random", {"load-format": "dummy"})


def shape_folder(config: Path, folder: Path) -> Path:
    """Make (or renew) a folder that vLLM loads as this architecture, with random weights.

    The tokenizer is the embedded model's: prompts and answers are token ids, so any will do. Its
    `model_max_length` is lifted to the architecture's, which vLLM would otherwise cut to, and it
    is given a text for every id of the architecture's vocabulary.

    Raises:
        UsageError: the class that vLLM has for this `model_type` is not known here.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    kind = content["model_type"]
    if "architectures" not in content and kind not in ARCHITECTURES:
        raise UsageError(
            f"不知道 model_type {kind} 在 vLLM 里的类名",
            remedy="在 engines/shape_model.py 的 ARCHITECTURES 里补上，或用带权重的目录",
        )
    content.setdefault("architectures", [ARCHITECTURES.get(kind)])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", json.dumps(content, indent=2))
    source = root() / "models" / TOKENIZER
    words = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    _name_all_ids(words["model"]["vocab"], content.get("vocab_size", 0))
    write_atomically(folder / "tokenizer.json", json.dumps(words))
    tokenizer = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["model_max_length"] = content.get("max_position_embeddings", 131072)
    write_atomically(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2))
    return folder


def _name_all_ids(vocabulary: dict[str, int], size: int) -> None:
    """Add a text for each id below `size` that has none.

    Random weights answer with any id. For ids without text the incremental decoder gives nothing
    out and decodes the whole sequence anew at every token: with 1,024 tokens of prompt and 256 of
    answer the API process took 57 ms of CPU a request instead of 21, and an 8B model waited for it.
    """
    known = set(vocabulary.values())
    vocabulary |= {f"Ġ#{number}": number for number in range(size) if number not in known}
