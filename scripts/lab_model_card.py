"""Write the figures of models/README.md: measured through the CPU engine, never typed by hand.

    python scripts/lab_model_card.py measure   # minutes: also models/measured.json
    python scripts/lab_model_card.py write     # seconds: README.md between its markers, loss.png

`write` reads training.json, sources.yaml, corpus.yaml, the configs and measured.json; the prose
outside the markers of models/README.md is left as it is.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import yaml

from inferlab.arithmetic.kv_cache import kv_bytes_per_token
from inferlab.arithmetic.parameters import count_parameters
from inferlab.arithmetic.shapes import ModelShape, read_config
from inferlab.errors import LabError
from inferlab.measure.acceptance import Acceptance
from inferlab.measure.embedded_model import DRAFT, MODELS, TARGET, group_of, measure
from inferlab.measure.perplexity import Likelihood
from inferlab.plots.style import BLUE, RED, new_figure, style


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shapes_block() -> str:
    """Shape and size of both models."""
    rows: list[list[str]] = []
    columns = [(read_config(MODELS / name), MODELS / name) for name in (TARGET, DRAFT)]
    shapes = [ModelShape.from_config(config) for config, _ in columns]
    rows.append(["参数量", *(f"{count_parameters(s).total:,}" for s in shapes)])
    for label, key in (
        ("层数", "num_hidden_layers"), ("hidden size", "hidden_size"),
        ("MLP 中间维", "intermediate_size"), ("Q head 数", "num_attention_heads"),
        ("KV head 数", "num_key_value_heads"), ("head dim", "head_dim"),
        ("词表（与输出层共享）", "vocab_size"), ("最大上下文", "max_position_embeddings"),
    ):  # fmt: skip
        rows.append([label, *(f"{config[key]:,}" for config, _ in columns)])
    rows.append(["每 token KV cache", *(f"{kv_bytes_per_token(s):,.0f} B" for s in shapes)])
    sizes = [(folder / "model.safetensors").stat().st_size / 1e6 for _, folder in columns]
    rows.append(["权重文件（bf16）", *(f"{size:.1f} MB" for size in sizes)])
    return table(["", f"`{TARGET}`", f"`{DRAFT}`"], rows)


def training_block() -> str:
    """How each was trained, from training.json."""
    logs = [read_json(MODELS / name / "training.json") for name in (TARGET, DRAFT)]
    rows = [
        ["步数", *(f"{log['steps']:,}" for log in logs)],
        ["每步 token", *(f"{log['batch_tokens']:,}" for log in logs)],
        ["见过的 token", *(f"{log['tokens_seen'] / 1e6:.0f} M" for log in logs)],
        ["相当于遍数", *(f"{log['tokens_seen'] / log['corpus_tokens']:.1f}" for log in logs)],
        ["GPU 与时长", *(f"1× {log['gpu']}，{_minutes(log)} 分钟" for log in logs)],
        ["最后一次记录的训练 loss", *(f"{log['curve'][-1]['loss']:.3f}" for log in logs)],
    ]
    commands = "\n".join(log["command"] for log in logs)
    return f"{table(['', f'`{TARGET}`', f'`{DRAFT}`'], rows)}\n\n```bash\n{commands}\n```"


def _minutes(log: dict[str, Any]) -> str:
    return re.findall(r"--minutes ([\d.]+)", log["command"])[0]


def quality_block() -> str:
    """Held-out perplexity: as the training script computed it, and through the engine."""
    measured = read_json(MODELS / "measured.json")
    rows = []
    for name in (TARGET, DRAFT):
        log = read_json(MODELS / name / "training.json")["held_out"]
        parts = measured["held_out"][name]
        everything = _summed(parts, ("code", "table"))
        rows += [
            [f"`{name}` 全部（训练脚本，GPU）", f"{log['tokens']:,}",
             f"{log['perplexity']:.3f}", f"{log['bits_per_byte']:.4f}"],
            [f"`{name}` 全部（{measured['engine']}，{measured['dtype']}）", *_quality(everything)],
            ["　其中代码文件", *_quality(_summed(parts, ("code",)))],
            ["　其中编码表", *_quality(_summed(parts, ("table",)))],
        ]  # fmt: skip
    return table(["held-out", "预测的 token", "perplexity", "bits/byte"], rows)


def _summed(parts: dict[str, dict[str, Any]], groups: tuple[str, ...]) -> Likelihood:
    chosen = (Likelihood(**value) for path, value in parts.items() if group_of(path) in groups)
    return sum(chosen, Likelihood())


def _quality(found: Likelihood) -> list[str]:
    return [f"{found.tokens:,}", f"{found.perplexity:.3f}", f"{found.bits_per_byte:.4f}"]


def acceptance_block() -> str:
    """Acceptance of the draft model and of n-gram drafting."""
    rows, configs = [], []
    for found in read_json(MODELS / "measured.json")["acceptance"].values():
        config = found.pop("config")
        configs.append(f"--speculative-config '{json.dumps(config)}'")
        for kind, span in found.items():
            prompts, same = span.pop("prompts"), span.pop("same")
            counted = Acceptance(**span)
            label = {"code": "代码", "table": "编码表"}[kind]
            rows.append([
                f"{config['method']}，{label}", f"{counted.accepted}/{counted.proposed}",
                f"{counted.rate:.1%}", f"{counted.length:.2f}", f"{counted.tokens_per_step:.2f}",
                f"{same}/{prompts}",
            ])  # fmt: skip
    header = ["方法，提示来自", "接受/提议", "接受率", "接受长度", "每步 token", "与普通解码相同"]
    flags = "\n".join(configs)
    return f"{table(header, rows)}\n\n```bash\n{flags}\n```"


def completions_block() -> str:
    """The five completions; a line marks where the prompt ends."""
    parts = []
    for found in read_json(MODELS / "measured.json")["completions"]:
        joined = found["prompt"] + "⟦" + found["text"].rstrip() + "⟧"
        parts.append(f"```text\n{joined}\n```")
    return "\n\n".join(parts)


def licence_kind(stated: str) -> str:
    """One name for the spellings of the common licences; anything unusual stays as stated."""
    for pattern, kind in (
        (r"Apache(-2\.0| License 2\.0| 2\.0( License)?| Software License)", "Apache-2.0"),
        (r"MIT( License)?", "MIT"),
        (r"BSD(-[23]-Clause| License)", "BSD（2 或 3 条款）"),
        (r"PSF-2\.0|Python Software Foundation License", "PSF-2.0"),
    ):
        if re.fullmatch(pattern, stated):
            return kind
    return stated


def data_block() -> str:
    """Size of the corpus, its licences, and every source in a folded list."""
    described = yaml.safe_load((MODELS / "sources.yaml").read_text(encoding="utf-8"))
    listed = yaml.safe_load((MODELS / "corpus.yaml").read_text(encoding="utf-8"))["packages"]
    tokens = read_json(MODELS / TARGET / "training.json")["corpus_tokens"]
    used = [source for source in described["sources"] if source["chars"]]
    kinds: dict[str, list[int]] = defaultdict(list)
    for source in used:
        kinds[licence_kind(source["licence"])].append(source["chars"])
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [[k, str(len(chars)), f"{sum(chars) / 1e6:.1f}"] for k, chars in ordered]
    each = "\n".join(f"- {s['name']} {s['version']}：{s['licence']}" for s in used)
    refused = len(listed) + 1 - len(described["sources"])
    return (
        f"{len(used)} 个来源（Python 标准库和 {len(used) - 1} 个包），"
        f"{described['files']:,} 个文件，"
        f"{described['chars'] / 1e6:.0f} M 字符，{tokens / 1e6:.1f} M token。"
        f"清单列了 {len(listed)} 个包：{refused} 个因许可证不在宽松之列或没有写明而未用，"
        f"{len(described['sources']) - len(used)} 个没有给出合格的文件。\n\n"
        f"{table(['元数据所写的许可证', '来源数', 'M 字符'], rows)}\n\n"
        f"<details>\n<summary>全部来源</summary>\n\n{each}\n\n</details>"
    )


BLOCKS = {
    "shapes": shapes_block, "training": training_block, "quality": quality_block,
    "acceptance": acceptance_block, "completions": completions_block, "data": data_block,
}  # fmt: skip


def render(readme: str) -> str:
    """The card with every `<!-- name -->…<!-- /name -->` block made anew."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        readme, count = pattern.subn(lambda m, b=block: f"{m[1]}\n{b()}\n\n{m[2]}", readme)
        if count != 1:
            raise LabError(
                f"models/README.md 中 <!-- {name} --> 出现 {count} 次", remedy="补成一对"
            )
    return readme


def draw_loss(path: Path) -> None:
    """Training loss of both models over the tokens seen."""
    with matplotlib.rc_context(style()):
        figure, axes = new_figure(width=6.4, height=3.4)
        for name, colour in ((TARGET, BLUE), (DRAFT, RED)):
            log = read_json(MODELS / name / "training.json")
            seen = [point["step"] * log["batch_tokens"] / 1e6 for point in log["curve"]]
            axes.plot(seen, [point["loss"] for point in log["curve"]], color=colour, lw=1.3)
            last = log["curve"][-1]["loss"]
            axes.annotate(f"{name}\n{last:.2f}", (seen[-1], last), (8, 12), color=colour,
                          textcoords="offset points", va="bottom", ha="right")  # fmt: skip
        axes.set(xlabel="见过的 token（百万）", ylabel="训练 loss（nat/token）", xlim=(0, None))
        axes.set_title("内置模型的训练 loss（每 100 步记一次）")
        figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("measure", "write"))
    if parser.parse_args().step == "measure":
        text = json.dumps(measure(), indent=1, ensure_ascii=False)
        (MODELS / "measured.json").write_text(text + "\n", encoding="utf-8")
    card = MODELS / "README.md"
    card.write_text(render(card.read_text(encoding="utf-8")), encoding="utf-8")
    draw_loss(MODELS / "loss.png")


if __name__ == "__main__":
    main()
