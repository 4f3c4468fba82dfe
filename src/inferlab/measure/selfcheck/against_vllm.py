"""The client beside `vllm bench serve` on one null server: CPU seconds of the whole process."""

import os
import subprocess
from pathlib import Path

from inferlab.errors import LabError
from inferlab.load.null_process import NullProcess, null_server
from inferlab.load.worker import WorkerPlan, run_in_process
from inferlab.measure.selfcheck.truth import Row


def against_vllm(vllm: Path, tokenizer: Path, streams: int = 512, tokens: int = 256) -> list[Row]:
    """512 streams of 50 tok/s by each client in turn; ours at most a quarter of vLLM's CPU.

    Args:
        vllm: the `vllm` executable of an engine environment.
        tokenizer: a local model directory whose tokenizer `vllm bench serve` may use.
        streams: concurrent streams, and requests.
        tokens: per answer.
    """
    with null_server(ttft_ms=200, ttft_jitter=0.9, itl_ms=20) as server:
        plan = WorkerPlan(server.url, streams, concurrency=streams, output_tokens=tokens)
        ours = run_in_process(plan).cpu_s
        theirs = vllm_bench_cpu_s(server, vllm, tokenizer, streams, tokens)
    value = f"{ours:.2f} / {theirs:.2f} CPU s = {ours / theirs:.2f}"
    return [Row(f"整个进程，{streams * tokens} token：本客户端 / vllm bench serve", value, "≤ 1/4",
                ours <= theirs / 4)]  # fmt: skip


def vllm_bench_cpu_s(
    server: NullProcess, vllm: Path, tokenizer: Path, streams: int, tokens: int
) -> float:
    """CPU seconds of one `vllm bench serve` process over the same load.

    Raises:
        LabError: it failed; the message is its last line.
    """
    command = [
        str(vllm), "bench", "serve", "--backend", "openai", "--base-url", server.url,
        "--model", "lab", "--tokenizer", str(tokenizer), "--dataset-name", "random",
        "--random-input-len", "32", "--random-output-len", str(tokens), "--ignore-eos",
        "--num-prompts", str(streams), "--disable-tqdm",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    before = os.times()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **offline}
    )
    after = os.times()
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LabError(f"vllm bench serve 失败（{''.join(last)}）", remedy=" ".join(command))
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system
