"""Train the embedded model and its draft: small Qwen3 models of Python source.

    python scripts/build_lab_corpus.py                           # any machine: .lab/corpus
    python scripts/train_lab_model.py tokenizer                  # any machine: tokenizer.json
    python scripts/train_lab_model.py train target --minutes 8   # one GPU
    python scripts/train_lab_model.py train draft --minutes 2.5  # one GPU, taught by the target

Needs torch ≥ 2.9, tokenizers, numpy and safetensors. The learning rate follows the share of the
time that has passed, so the same command gives a finished model on any GPU; the steps really done
are written to `training.json` beside the weights.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 5120
# Words keep the space or underscore before them; digits stand alone; runs of spaces (indentation)
# hold together.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EVAL_TOKENS = 1024  # window of the perplexity figure, also in inferlab.measure.perplexity


@dataclass(frozen=True)
class Shape:
    """A Qwen3 shape whose widths suit group-wise quantisation kernels (groups of 128)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 64
    vocab_size: int = VOCABULARY
    max_position_embeddings: int = 4096
    rope_theta: float = 100_000.0
    rms_norm_eps: float = 1e-6

    def config(self) -> dict:
        """The Hugging Face `config.json` of this shape."""
        return asdict(self) | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": 0,
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }


SHAPES = {
    "target": Shape(256, 768, 8, 4, 2),
    "draft": Shape(128, 384, 4, 2, 1),
}
FOLDERS = {"target": "lab-python-8m", "draft": "lab-python-draft"}
PEAK_LEARNING_RATE = {"target": 4e-3, "draft": 6e-3}


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, _ = x.shape
        split = (batch, length, -1, self.shape.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(split)).transpose(1, 2), rotation)
        k = rotate(self.k_norm(self.k_proj(x).view(split)).transpose(1, 2), rotation)
        v = self.v_proj(x).view(split).transpose(1, 2)
        group = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class Model(nn.Module):
    """Qwen3 with tied embeddings; parameter names are those of Hugging Face's checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        residual = 0.02 / math.sqrt(2 * shape.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=residual if deep else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [batch, length] → logits [batch, length, vocabulary]."""
        rotation = rotary(self.shape, ids.shape[1], ids.device)
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, rotation)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def rotary(shape: Shape, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, shape.head_dim, 2, device=device, dtype=torch.float32) / shape.head_dim
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = positions[:, None] / shape.rope_theta**half
    angles = torch.cat((angles, angles), dim=-1)  # [length, head_dim]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def train_tokenizer(corpus: Path, out: Path) -> None:
    """Byte-level BPE on an even sample of the corpus; written into both model folders."""
    files = (corpus / "train.txt").read_text(encoding="utf-8").split(END_OF_TEXT)
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(files[::6], trainer)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": SHAPES["target"].max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        # A base model has no chat format: the chat endpoint gets the messages' text as it stands.
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    for folder in FOLDERS.values():
        (out / folder).mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(out / folder / "tokenizer.json"), pretty=False)
        (out / folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n")


def encode(path: Path, tokenizer: Tokenizer) -> np.ndarray:
    """All files of a corpus as one array of ids, each file closed by the end-of-text token."""
    files = path.read_text(encoding="utf-8").split(END_OF_TEXT)
    parts = []
    for start in range(0, len(files), 2000):
        for encoding in tokenizer.encode_batch_fast(files[start : start + 2000]):
            parts.append(np.array([*encoding.ids, 0], dtype=np.uint16))
    return np.concatenate(parts)


def batches(ids: Tensor, batch_tokens: int, length: int, seed: int) -> Iterator[Tensor]:
    """Endless random windows [batch_tokens / length, length + 1]."""
    generator = torch.Generator(device=ids.device).manual_seed(seed)
    within = torch.arange(length + 1, device=ids.device)
    while True:
        shape = (batch_tokens // length, 1)
        starts = torch.randint(len(ids) - length - 1, shape, generator=generator, device=ids.device)
        yield ids[starts + within]


@torch.no_grad()
def perplexity(model: nn.Module, text: Path, tokenizer: Tokenizer, device: str) -> dict[str, float]:
    """Held-out perplexity per token and bits per byte.

    Each file is cut into windows of `EVAL_TOKENS`; a window's first token is given, not predicted.
    """
    loss, predicted, size = 0.0, 0, 0
    for file in text.read_text(encoding="utf-8").split(END_OF_TEXT):
        ids = tokenizer.encode(file).ids
        for start in range(0, len(ids), EVAL_TOKENS):
            window = torch.tensor([ids[start : start + EVAL_TOKENS]], device=device)
            if window.shape[1] < 2:
                continue
            logits = model(window[:, :-1]).float()
            loss += F.cross_entropy(logits[0], window[0, 1:], reduction="sum").item()
            predicted += window.shape[1] - 1
            size += len(tokenizer.decode(window[0, 1:].tolist()).encode())
    return {
        "perplexity": math.exp(loss / predicted),
        "bits_per_byte": loss / math.log(2) / size,
        "tokens": predicted,
    }


def learning_rate(progress: float, peak: float) -> float:
    """Warm up over 1 %, hold to 45 %, then fall linearly to 2 % of the peak."""
    if progress < 0.01:
        return peak * progress / 0.01
    return peak * min(1.0, 0.02 + 0.98 * (1 - progress) / 0.55)


def make_loss(model: nn.Module, teacher: nn.Module | None):
    """Cross entropy; with a teacher, half of it is the distance to the teacher's distribution."""

    def loss(window: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(window[:, :-1]).flatten(0, 1)
        entropy = F.cross_entropy(logits.float(), window[:, 1:].flatten())
        if teacher is None:
            return entropy, entropy
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            taught = F.log_softmax(teacher(window[:, :-1]).flatten(0, 1).float(), dim=-1)
        own = F.log_softmax(logits.float(), -1)
        distance = F.kl_div(own, taught, log_target=True, reduction="none")
        return 0.5 * entropy + 0.5 * distance.sum(-1).mean(), entropy

    return torch.compile(loss, dynamic=False)


def optimizer_for(model: nn.Module, peak: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)


def load_teacher(out: Path) -> nn.Module:
    teacher = Model(SHAPES["target"]).cuda()
    teacher.load_state_dict(load_file(out / FOLDERS["target"] / "model.safetensors"))
    return teacher.eval().requires_grad_(False)


def train(
    which: str, corpus: Path, out: Path, minutes: float, batch_tokens: int, seed: int
) -> None:
    """Train one model for `minutes` on the first GPU and write weights, config and the log."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    folder = out / FOLDERS[which]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.from_numpy(encode(corpus / "train.txt", tokenizer).astype(np.int32)).cuda().long()
    model = Model(SHAPES[which]).cuda()
    teacher = load_teacher(out) if which == "draft" else None
    loss_of, optimizer = make_loss(model, teacher), optimizer_for(model, PEAK_LEARNING_RATE[which])
    # The last quarter sees the full context, the rest a shorter one that trains faster.
    short, full = (batches(ids, batch_tokens, length, seed) for length in (1024, 4096))
    for source in (short, full):  # compile both shapes before the clock starts
        loss_of(next(source))[0].backward()
    optimizer.zero_grad(set_to_none=True)
    curve, step, started = [], 0, time.monotonic()
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, PEAK_LEARNING_RATE[which])
        loss, entropy = loss_of(next(short if progress < 0.75 else full))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            reached = round(entropy.item(), 4)
            curve.append({"step": step, "minutes": progress * minutes, "loss": reached})
            print(curve[-1], flush=True)
    finish(which, model.bfloat16(), tokenizer, corpus, folder, {
        "command": f"python scripts/train_lab_model.py train {which} --minutes {minutes:g}",
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "seed": seed,
        "steps": step, "batch_tokens": batch_tokens, "tokens_seen": step * batch_tokens,
        "corpus_tokens": len(ids), "parameters": sum(p.numel() for p in model.parameters()),
        "peak_learning_rate": PEAK_LEARNING_RATE[which], "curve": curve,
    })  # fmt: skip


def finish(
    which: str, model: Model, tokenizer: Tokenizer, corpus: Path, folder: Path, log: dict
) -> None:
    """Judge the finished model on the held-out text and write it beside its log."""
    log["held_out"] = perplexity(model, corpus / "heldout.txt", tokenizer, "cuda")
    print(which, log["held_out"], log["steps"], "steps", flush=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SHAPES[which].config(), indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps(log, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path(".lab/corpus"))
    parser.add_argument("--out", type=Path, default=Path("models"))
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("tokenizer")
    training = steps.add_parser("train")
    training.add_argument("which", choices=SHAPES)
    training.add_argument("--minutes", type=float, default=8)
    training.add_argument("--batch-tokens", type=int, default=131_072)
    training.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.step == "tokenizer":
        train_tokenizer(arguments.corpus, arguments.out)
    elif not torch.cuda.is_available():
        parser.error("training needs one CUDA GPU; none was found")
    else:
        train(arguments.which, arguments.corpus, arguments.out, arguments.minutes,
              arguments.batch_tokens, arguments.seed)  # fmt: skip


if __name__ == "__main__":
    main()
