"""What a server's Prometheus `/metrics` says over time, while something runs.

with watch("http://127.0.0.1:8000", every_s=0.1) as seen:
    run_closed_loop(endpoint, specs, 8)
table = seen.table()

vLLM's series: vllm/v1/metrics/loggers.py. Counters grow from the engine's start, so a table counts
from its own first row.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from inferlab.engines import health
from inferlab.errors import LabError

GAUGES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:kv_cache_usage_perc",
}
COUNTERS = {
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "preemptions": "vllm:num_preemptions_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
}
_NAMES = {series: name for name, series in (GAUGES | COUNTERS).items()}


@dataclass(frozen=True)
class MetricsTable:
    """One row a poll.

    Attributes:
        at_s: seconds since the watch began.
        columns: name (see GAUGES and COUNTERS) → values; counters start at 0. `kv_usage` is the
            share of KV blocks in use, 0 to 1; tokens are counts.
    """

    at_s: list[float]
    columns: dict[str, list[float]]

    def __len__(self) -> int:
        return len(self.at_s)

    def peak(self, name: str) -> float:
        """The largest value of a column."""
        return max(self.columns[name])

    def total(self, name: str) -> float:
        """What a counter counted between the first and the last row."""
        return self.columns[name][-1] - self.columns[name][0]

    def per_s(self, name: str) -> list[float]:
        """A counter's growth per second between rows; one value less than there are rows."""
        rows = zip(pairwise(self.at_s), pairwise(self.columns[name]), strict=True)
        return [(new - old) / (end - start) for (start, end), (old, new) in rows]

    def hit_ratio(self) -> float:
        """Prompt tokens found in the prefix cache ÷ tokens looked up; 0 without any."""
        asked = self.total("prefix_queries")
        return self.total("prefix_hits") / asked if asked else 0.0


@dataclass
class Watch:
    """Rows collected so far; `error` says why polling ended early."""

    started_s: float = field(default_factory=time.perf_counter)
    rows: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    error: str = ""

    def table(self) -> MetricsTable:
        """The rows as columns.

        Raises:
            LabError: fewer than two polls were answered.
        """
        if len(self.rows) < 2:
            raise LabError(f"/metrics 只读到 {len(self.rows)} 次（{self.error or '时间太短'}）")
        first = self.rows[0][1]
        columns = {
            name: [row.get(name, 0.0) - (first.get(name, 0.0) if name in COUNTERS else 0.0)
                   for _, row in self.rows]
            for name in GAUGES | COUNTERS
        }  # fmt: skip
        return MetricsTable([at for at, _ in self.rows], columns)


@contextmanager
def watch(url: str, *, every_s: float = 0.1) -> Iterator[Watch]:
    """Poll a server's `/metrics` in a thread for the time of the block, first and last included.

    Raises:
        LabError: the first poll was not answered, or it is no vLLM server.
    """
    seen, stop = Watch(), threading.Event()
    _poll(url, seen)
    if seen.error:
        raise LabError(f"{url}/metrics 读不到（{seen.error}）", remedy="先启动引擎：./lab up")

    def poll() -> None:
        while not stop.wait(every_s) and not seen.error:
            _poll(url, seen)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        if not seen.error:
            _poll(url, seen)


def parse(text: str) -> dict[str, float]:
    """The columns of one `/metrics` page; labels (engines, models) are summed.

    Only the wanted lines are parsed: histograms make up most of the page, and parsing costs the
    engine's CPU time.
    """
    wanted = "\n".join(line for line in text.splitlines() if _series(line) in _NAMES)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(wanted + "\n"):
        for sample in family.samples:
            name = _NAMES.get(sample.name)
            if name:
                found[name] = found.get(name, 0.0) + sample.value
    return found


def snapshot(url: str) -> dict[str, float]:
    """The columns as they stand now.

    Raises:
        OSError: the server cannot be reached.
    """
    return parse(health.metrics(url))


def _series(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]


def _poll(url: str, seen: Watch) -> None:
    try:
        row = snapshot(url)
    except (OSError, ValueError) as error:
        seen.error = str(error)
        return
    if not row:
        seen.error = "没有 vllm: 开头的指标"
        return
    seen.rows.append((time.perf_counter() - seen.started_s, row))


def cache_config(url: str) -> dict[str, str]:
    """The KV cache's configuration as `/metrics` tells it: `block_size`, `num_gpu_blocks`, … as
    text; empty where the server does not tell.

    Raises:
        OSError: the server cannot be reached.
    """
    lines = [x for x in health.metrics(url).splitlines() if _series(x) == "vllm:cache_config_info"]
    families = list(text_string_to_metric_families("\n".join([*lines, ""])))
    return dict(families[0].samples[0].labels) if families else {}
