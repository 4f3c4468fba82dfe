"""Where the time of an engine's decode step goes, from vLLM's own torch profiler.

The server must have been started with a profiler (`profiler-config: {profiler: torch, …}`): it then
answers `/start_profile` and `/stop_profile`. The profiler is told to wait until all sequences
decode, to take a fixed number of steps and to stop by itself (vllm/profiler/wrapper.py); that slows
the host, never the kernels, so the same load is also timed without it.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from inferlab.engines import health
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.load.endpoint import Endpoint
from inferlab.load.runner import all_answered, run_closed_loop
from inferlab.load.samples import RequestSpec
from inferlab.measure.engine_sweep import random_prompt
from inferlab.measure.kernel_classes import GAPS, KEPT_OF_A_NAME, OTHER, PARTS, part_of, short_name
from inferlab.measure.trace import StepTimes, decode_steps, read_trace

VOCABULARY = 2048
SHOWN_KERNELS = 16
FEWEST_PREFILL_TOKENS = 2048  # vLLM's smallest default budget a step: more steps only wait longer


def measure(url: str, log_folder: Path, with_: Mapping[str, Any]) -> list[Series]:
    """Profile decode steps of a running server.

    Args:
        url: the server's address.
        log_folder: where the server writes its traces (`torch_profiler_dir`).
        with_: `batch` sequences (1), `context` prompt tokens each (128), `steps` profiled (32),
            `repeats` profiles (3).

    Returns:
        `step_time` (s) a part of `kernel_classes.PARTS`, of the whole step in the trace (`total`),
        and as the client sees it without the profiler (`unprofiled`); `kernel_time` (s) of the
        longest kernels and of every unknown one; `kernel_calls` beside it; `profiled_steps`.

    Raises:
        LabError: the server has no profiler, a request failed, or no trace was written.
    """
    batch, context = int(with_.get("batch", 1)), int(with_.get("context", 128))
    steps, repeats = int(with_.get("steps", 32)), int(with_.get("repeats", 3))
    labels = {"batch": batch, "context": context}
    plain, found = [], []
    for repeat in range(repeats):
        plain.append(_step_s(url, batch, context, steps, seed=2 * repeat))
        trace = _profile(url, log_folder, batch, context, steps, seed=2 * repeat + 1)
        found.append(decode_steps(read_trace(trace), batch))
    return [*_step_series(found, plain, labels), *_kernel_series(found, labels)]


def _step_s(url: str, batch: int, context: int, steps: int, *, seed: int) -> float:
    """Seconds of a decode step as the client sees it: mean time per output token."""
    specs = _specs(batch, context, steps, seed)
    samples = all_answered(run_closed_loop(Endpoint(url=url), specs, batch))
    return sum(sample.tpot_ms or 0.0 for sample in samples) / len(samples) / 1e3


def _profile(
    url: str, log_folder: Path, batch: int, context: int, steps: int, *, seed: int
) -> Path:
    """The trace of `steps` decode steps; the profiler starts once every prompt is prefilled."""
    waiting = 8 + batch * -(-context // FEWEST_PREFILL_TOKENS)
    began = time.time()
    _post(f"{url}/start_profile", {"delay_iterations": waiting, "max_iterations": steps})
    try:
        _step_s(url, batch, context, waiting + steps + 8, seed=seed)
    finally:
        _post(f"{url}/stop_profile", {})
    return newest_trace(log_folder, began)


def newest_trace(folder: Path, since: float, *, timeout_s: float = 60.0) -> Path:
    """The worker's newest trace written after the Unix time `since`; waits for it.

    Raises:
        LabError: none was written in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = [path for path in folder.rglob("*.pt.trace.json*") if path.stat().st_mtime >= since]
        # The front end may write a trace of its own; the worker's is named after its rank.
        found = [path for path in found if "rank" in path.name] or found
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
        if time.monotonic() > deadline:
            raise LabError(f"{folder.name} 里没有新的 trace", remedy="检查 torch_profiler_dir")
        time.sleep(0.2)


def _specs(batch: int, context: int, tokens: int, seed: int) -> list[RequestSpec]:
    return [
        RequestSpec(
            random_prompt(context, VOCABULARY, 7_000_000 + 1000 * seed + place),
            tokens,
            ignore_eos=True,
        )
        for place in range(batch)
    ]


def _post(url: str, body: Mapping[str, Any]) -> None:
    try:
        health.post(url, body, timeout_s=300)
    except HTTPError as error:
        raise LabError(
            f"{url} 返回 {error.code}", remedy="用 engine/profiled.yaml 启动引擎"
        ) from None
    except OSError as error:
        raise LabError(f"{url} 没有应答（{error}）") from error


def _step_series(
    found: Sequence[StepTimes], plain: Sequence[float], labels: Mapping[str, Any]
) -> list[Series]:
    device = {**labels, "device": found[0].device}
    seen = [part for part in PARTS if any(each.seconds.get(part) for each in found)]
    parts = {part: [each.seconds.get(part, 0.0) for each in found] for part in [*seen, GAPS]}
    parts |= {"total": [each.total_s for each in found], "unprofiled": list(plain)}
    steps = Series("profiled_steps", "", [float(each.steps) for each in found], device)
    return [Series("step_time", "s", v, {**device, "part": part}) for part, v in parts.items()] + [
        steps
    ]


def _kernel_series(found: Sequence[StepTimes], labels: Mapping[str, Any]) -> list[Series]:
    names = {name for each in found for name in each.kernels}
    means = {name: sum(e.kernels.get(name, (0, 0.0))[1] for e in found) for name in names}
    longest = sorted(means, key=lambda name: -means[name])[:SHOWN_KERNELS]
    unknown = sorted(name for name in names if part_of(name) == OTHER and name not in longest)
    series = []
    for name in [*longest, *unknown]:
        named = {"kernel": short_name(name), "full": name[:KEPT_OF_A_NAME]}
        label = {**labels, "part": part_of(name), **named}
        calls, seconds = zip(*(each.kernels.get(name, (0.0, 0.0)) for each in found), strict=True)
        series.append(Series("kernel_time", "s", list(seconds), label))
        series.append(Series("kernel_calls", "", list(calls), label))
    return series
