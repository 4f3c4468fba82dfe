"""Result files of other benchmark clients as records.

Read from each tool's own source: `vllm bench serve` 0.32.0 (`benchmarks/serve.py`), GuideLLM 0.8.1
(`benchmarks.json`, report version 2) and AIPerf 0.13.0 (`profile_export_aiperf.json`, schema 1.4).
Their figures get this repository's names only where the definition is the same:

- all three count latency from the sending (label `latency_from: send`), so queueing in a client
  with a concurrency cap is not in it;
- vLLM's ITL is one value a chunk: `chunk_gap_ms` here; its TPOT is `tpot_ms` (with n - 1);
- GuideLLM's and AIPerf's ITL is a request's mean: `tpot_ms`; GuideLLM's "time per output token"
  includes TTFT and keeps its own name.

One file is one run, so figures have no interval. Host and weights are unknown.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inferlab.errors import UsageError
from inferlab.hardware.timing import Series
from inferlab.records.provenance import describe_software
from inferlab.records.schema import EngineInfo, Figure, Model, Record

Content = dict[str, Any]
VERSIONS = {"vllm": "0.32.0", "guidellm": "0.8.1", "aiperf": "0.13.0"}
_VLLM_LATENCIES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "chunk_gap_ms", "e2el": "e2e_ms",
                   "e2el_including_client_queue": "e2e_ms"}  # fmt: skip
_GUIDELLM = {
    "time_to_first_token_ms": ("ttft_ms", 1.0),
    "inter_token_latency_ms": ("tpot_ms", 1.0),
    "time_per_output_token_ms": ("guidellm_time_per_output_token_ms", 1.0),
    "request_latency": ("e2e_ms", 1e3),
    "request_dispatch_delay": ("send_delay_ms", 1e3),
}
_AIPERF = {
    "time_to_first_token": "ttft_ms",
    "inter_token_latency": "tpot_ms",
    "inter_chunk_latency": "chunk_gap_ms",
    "request_latency": "e2e_ms",
}
_AIPERF_RATES = {
    "request_throughput": ("requests_per_s", "req/s"),
    "output_token_throughput": ("output_tokens_per_s", "tok/s"),
    "total_token_throughput": ("total_tokens_per_s", "tok/s"),
    "goodput": ("goodput.requests_per_s", "req/s"),
}
_MILLISECONDS = {"ms": 1.0, "s": 1e3, "sec": 1e3, "us": 1e-3, "ns": 1e-6}


def import_result(path: Path, device: str = "") -> Record:
    """The record of a result file; the tool is recognised by the content.

    Args:
        path: JSON; of several lines (`vllm bench serve --append-result`) the last counts.
        device: what it was measured on, as the reader says.

    Raises:
        UsageError: the file cannot be read, or is none of the known formats.
    """
    content = _read(path)
    for tool, is_format, read in _FORMATS:
        if is_format(content):
            try:
                return read(content, path, device or "unknown", tool)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise UsageError(
                    f"{path} 像是 {tool} 的结果，但缺少或写错了 {error}",
                    remedy=f"支持的版本是 {VERSIONS[tool]}",
                ) from None
    raise UsageError(
        f"认不出 {path} 是哪个工具的结果",
        remedy="支持 vllm bench serve、GuideLLM（benchmarks.json）、"
        "AIPerf（profile_export_aiperf.json）",
    )


def _read(path: Path) -> Content:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "不是 UTF-8 文本"
        raise UsageError(f"读不了 {path}（{reason}）", remedy="检查路径") from None
    for part in (text, (text.strip().splitlines() or [""])[-1]):
        try:
            content = json.loads(part)
        except ValueError:
            continue
        if isinstance(content, dict):
            return content
    raise UsageError(f"{path} 不是 JSON 对象", remedy="检查文件，或重新导出")


def _vllm(content: Content, path: Path, device: str, tool: str) -> Record:
    cap, rate = content.get("max_concurrency"), content.get("request_rate")
    load: Content = {"concurrency": cap} if cap else {}
    load |= {"rate_per_s": rate} if rate not in (None, "inf") else {}
    figures = list(_vllm_figures(content, load))
    failures = {"failed": content["failed"]} if content.get("failed") else {}
    known = ("backend", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration",
             "completed", "total_input_tokens", "total_output_tokens")  # fmt: skip
    parameters = {name: content.get(name) for name in known} | {"failures": failures}
    return _record(tool, path, device, content["model_id"], figures, parameters, "")


def _vllm_figures(content: Content, load: Content) -> Iterator[Series]:
    for theirs, ours in _VLLM_LATENCIES.items():
        for key, part in (("mean", "mean"), ("median", "p50"), ("p90", "p90"), ("p95", "p95"),
                          ("p99", "p99")):  # fmt: skip
            value = content.get(f"{key}_{theirs}_ms")
            if value is not None:
                start = "schedule" if theirs.endswith("queue") else "send"
                yield _series(f"{ours}.{part}", "ms", value, load, start)
    for theirs, ours, unit in (
        ("request_throughput", "requests_per_s", "req/s"),
        ("output_throughput", "output_tokens_per_s", "tok/s"),
        ("total_token_throughput", "total_tokens_per_s", "tok/s"),
        ("request_goodput", "goodput.requests_per_s", "req/s"),
    ):
        if content.get(theirs) is not None:
            yield _series(ours, unit, content[theirs], load)


def _guidellm(content: Content, path: Path, device: str, tool: str) -> Record:
    figures = [s for bench in content["benchmarks"] for s in _guidellm_figures(bench)]
    totals = [bench["metrics"].get("request_totals") for bench in content["benchmarks"]]
    backend = content["benchmarks"][0].get("config", {}).get("backend", {})
    parameters = {"request_totals": totals,
                  "strategies": [_strategy(bench) for bench in content["benchmarks"]]}  # fmt: skip
    version = str(content["metadata"].get("guidellm_version") or "")
    return _record(tool, path, device, _model_in(backend), figures, parameters, version)


def _guidellm_figures(bench: Content) -> Iterator[Series]:
    load, metrics = _strategy(bench), bench["metrics"]
    for theirs, (ours, scale) in _GUIDELLM.items():
        found = (metrics.get(theirs) or {}).get("successful")
        if found and found.get("count"):
            yield _series(f"{ours}.mean", "ms", found["mean"] * scale, load, "send")
            for part in ("p50", "p90", "p95", "p99"):
                value = found["percentiles"][part] * scale
                yield _series(f"{ours}.{part}", "ms", value, load, "send")
    for theirs, ours, unit in (
        ("requests_per_second", "requests_per_s", "req/s"),
        ("output_tokens_per_second", "output_tokens_per_s", "tok/s"),
        ("tokens_per_second", "total_tokens_per_s", "tok/s"),
    ):
        found = (metrics.get(theirs) or {}).get("successful")
        if found:
            yield _series(ours, unit, found["mean"], load)


def _strategy(bench: Content) -> Content:
    strategy = bench.get("config", {}).get("strategy", {})
    kind = strategy.get("type_") or strategy.get("kind") or "unknown"
    keys = {"rate": "rate_per_s", "streams": "concurrency", "max_concurrency": "max_concurrency"}
    named = {ours: strategy[key] for key, ours in keys.items() if strategy.get(key) is not None}
    return {"strategy": kind, **named}


def _aiperf(content: Content, path: Path, device: str, tool: str) -> Record:
    figures = list(_aiperf_figures(content))
    errors = (content.get("error_request_count") or {}).get("avg")
    cut = "" if content.get("is_complete", True) in (True, None) else "AIPerf 标为不完整"
    if content.get("was_cancelled"):
        cut = "AIPerf 运行被取消"
    parameters = {"failures": {"failed": errors} if errors else {},
                  "schema": content.get("schema_version")}  # fmt: skip
    model = _model_in(content.get("input_config") or {})
    version = str(content.get("aiperf_version") or "")
    return _record(tool, path, device, model, figures, parameters, version, cut)


def _aiperf_figures(content: Content) -> Iterator[Series]:
    for theirs, ours in _AIPERF.items():
        found = content.get(theirs) or {}
        for key, part in (("avg", "mean"), ("p50", "p50"), ("p90", "p90"), ("p95", "p95"),
                          ("p99", "p99")):  # fmt: skip
            if found.get(key) is not None:
                value = found[key] * _MILLISECONDS[found["unit"]]
                yield _series(f"{ours}.{part}", "ms", value, {}, "send")
    for theirs, (ours, unit) in _AIPERF_RATES.items():
        value = (content.get(theirs) or {}).get("avg")
        if value is not None:
            yield _series(ours, unit, value, {})


def _model_in(settings: Content) -> str:
    """The first model name in a tool's settings, wherever its version keeps it."""
    for key in ("model", "model_name", "model_names", "models", "items", "name"):
        value = settings.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and (name := _model_in(value)) != "unknown":
            return name
    return "unknown"


def _series(name: str, unit: str, value: float, load: Content, start: str = "") -> Series:
    labels = load | ({"latency_from": start} if start else {})
    return Series(name, unit, [float(value)], labels)


def _record(
    tool: str, path: Path, device: str, model: str, figures: list[Series], parameters: Content,
    version: str, cut: str = "",
) -> Record:  # fmt: skip
    if not figures:
        raise KeyError("任何指标")
    name = Path(model).name if model.startswith("/") else model
    notes = {"tool": tool, "tool_version": version or None, "format_known": VERSIONS[tool],
             "file": path.name}  # fmt: skip
    return Record(
        kind="import", lab="import", experiment=path.stem, device=device, partial=cut,
        command=f"./lab records import {path.name}", repeats=1, host=None,
        software=describe_software(Path(sys.executable)), engine=EngineInfo(),
        model=Model(name=name, weights="unknown", dtype="unknown"),
        parameters=notes | parameters, figures=[Figure.from_series(each) for each in figures],
    )  # fmt: skip


_Read = Callable[[Content, Path, str, str], Record]
_FORMATS: list[tuple[str, Callable[[Content], bool], _Read]] = [
    ("guidellm", lambda c: "benchmarks" in c and "metadata" in c, _guidellm),
    ("vllm", lambda c: "model_id" in c and "request_throughput" in c, _vllm),
    ("aiperf", lambda c: isinstance(c.get("request_throughput"), dict) and "input_config" in c,
     _aiperf),
]  # fmt: skip
