"""Where the latency tracker's probes go: a CSV file and Prometheus."""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferlab.errors import UsageError
from inferlab.load.samples import RequestSample

if TYPE_CHECKING:
    from prometheus_client import Histogram

COLUMNS = (
    "wall_time", "monotonic_s", "status", "ttft_ms", "tpot_ms", "e2e_ms",
    "prompt_tokens", "cached_tokens", "output_tokens", "error",
)  # fmt: skip
# Seconds, about two a factor of 2.5: one set serves a laptop's model and a loaded cluster.
BUCKETS = tuple(
    base * 10.0**power for power in range(-4, 3) for base in (1.0, 1.5, 2.5, 4.0, 6.0)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe and when it was due: Unix time, and `time.monotonic()` for gaps that a change of
    the clock must not bend."""

    wall_s: float
    monotonic_s: float
    sample: RequestSample


class CsvLog:
    """Appends a row a probe and flushes it, so an interrupted recording keeps every row.

    An existing file is continued when its header is the same. Latencies of failed probes are kept
    as far as they were seen; `status` tells them apart.

    Raises:
        UsageError: the file holds something else, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        header = ",".join(COLUMNS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+", newline="", encoding="utf-8")
            first = ""
            if path.stat().st_size:
                self._file.seek(0)
                first = self._file.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "不是文本文件"
            raise UsageError(f"打不开 {path}（{reason}）", remedy="换一个 --csv 文件") from None
        if first not in ("", header):
            self._file.close()
            raise UsageError(f"{path} 已有别的内容", remedy="换一个 --csv 文件")
        self._rows = csv.writer(self._file, lineterminator="\n")
        if not first:
            self._rows.writerow(COLUMNS)
            self._file.flush()

    def write(self, probe: Probe) -> None:
        """Add one row."""
        sample = probe.sample
        wall = datetime.fromtimestamp(probe.wall_s, UTC).isoformat(timespec="milliseconds")
        self._rows.writerow([
            wall, f"{probe.monotonic_s:.3f}", sample.status, _ms(sample.ttft_ms),
            _ms(sample.tpot_ms), _ms(sample.e2e_ms), sample.prompt_tokens, sample.cached_tokens,
            sample.output_tokens, " ".join(sample.error.split()),
        ])  # fmt: skip
        self._file.flush()

    def __enter__(self) -> "CsvLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class ProbeMetrics:
    """Histograms of the whole answers' latencies in seconds, a counter of probes by status, and
    when the last one succeeded."""

    def __init__(self, model: str) -> None:
        # Imported here: `load` starts with the standard library alone.
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self._registry = CollectorRegistry()
        self._model = model
        self._server: Any = None
        self._histograms = {
            "ttft_ms": self._histogram("ttft", "Time to first token"),
            "tpot_ms": self._histogram("tpot", "Mean time per token after the first chunk"),
            "e2e_ms": self._histogram("e2e", "From the scheduled time to the stream's end"),
        }
        self._count = Counter(
            "inferlab_probe_requests", "Probes by outcome", ["model", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._last = Gauge(
            "inferlab_probe_last_success_timestamp_seconds", "When the last probe succeeded",
            ["model"], registry=self._registry,
        )  # fmt: skip

    def _histogram(self, name: str, text: str) -> "Histogram":
        from prometheus_client import Histogram

        return Histogram(f"inferlab_probe_{name}_seconds", text, ["model"], buckets=BUCKETS,
                         registry=self._registry)  # fmt: skip

    def observe(self, probe: Probe) -> None:
        """Count one probe."""
        sample = probe.sample
        self._count.labels(self._model, str(sample.status)).inc()
        if not sample.ok:
            return
        self._last.labels(self._model).set(probe.wall_s)
        for name, histogram in self._histograms.items():
            if (value := getattr(sample, name)) is not None:
                histogram.labels(self._model).observe(value / 1e3)

    def serve(self, port: int, address: str = "127.0.0.1") -> int:
        """Serve `/metrics` from a daemon thread; returns the port in use (0 asks for a free one).

        Raises:
            UsageError: the port is taken or not allowed.
        """
        from prometheus_client import start_http_server

        try:
            self._server, _ = start_http_server(port, addr=address, registry=self._registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "端口号超出范围"
            raise UsageError(
                f"无法监听 {address}:{port}：{reason}", remedy="换一个 --prometheus 端口"
            ) from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
