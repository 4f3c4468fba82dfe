"""What the router alone takes: a null server asked directly, through it, and as a decode worker.

The null server answers by the clock, so that what differs is the router's: half a millisecond or
two percent would be lost in what an engine scatters. In prefill's place stands a null server too,
which answers at once, so that the second exchange is measured and no prefill. Client, router and
null servers share this machine's cores; no GPU takes part. Run by `./lab record`:

python -m inferlab.measure.router_null --out router_null.json
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import sub, truediv
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from inferlab.engines.ports import free_port
from inferlab.errors import LabError
from inferlab.hardware.experiment import run
from inferlab.hardware.timing import Series
from inferlab.load.null_process import null_server
from inferlab.load.worker import WorkerPlan, run_in_process

ROUTER_START_S = 30.0
ROUTER_END_S = 10.0


@dataclass(frozen=True, slots=True)
class RouterLoad:
    """A closed loop on a null server.

    Attributes:
        name: label of the figures.
        script: fields of `inferlab.load.null_script.Script`.
    """

    name: str
    requests: int
    concurrency: int
    output_tokens: int | str
    script: dict[str, Any]

    def plan(self, url: str, seed: int) -> WorkerPlan:
        """The load as sent to an address."""
        return WorkerPlan(url, self.requests, output_tokens=self.output_tokens,
                          concurrency=self.concurrency, seed=seed, check=False)  # fmt: skip


# What one request waits; the same where 16 tokens leave an engine at once in every step (the load
# of `router_overhead` on an H200: a step took 5.5 ms, a first token four to five of them); what 192
# streams of 50 tok/s lose (an 8B model on an H200 gave 5,700 to 6,000 tok/s to as many, with their
# prefills); and what is lost when the null server does not wait.
LOADS = (
    RouterLoad("one at a time", 24, 1, 32, {"ttft_ms": 20, "itl_ms": 5}),
    RouterLoad("16 in step", 240, 16, "64-192", {"ttft_ms": 22, "itl_ms": 5.5, "step_ms": 5.5}),
    RouterLoad("192 streams", 960, 192, 64, {"ttft_ms": 200, "ttft_jitter": 0.9, "itl_ms": 20}),
    RouterLoad("flat out", 768, 256, 128, {"ttft_ms": 20, "ttft_jitter": 0.9, "itl_ms": 1}),
)


@dataclass(slots=True)
class Way:
    """To the null server, directly or through a router, and what was seen: one value a run."""

    path: str
    url: str
    router: psutil.Process | None = None
    ttft_ms: list[float] = field(default_factory=list)
    output_tokens_per_s: list[float] = field(default_factory=list)
    cpu_ms_per_token: list[float] = field(default_factory=list)

    def take(self, load: RouterLoad, seed: int) -> None:
        """One run.

        Raises:
            LabError: a request was not answered whole.
        """
        before = self._cpu_s()
        samples = run_in_process(load.plan(self.url, seed)).run.samples
        if failed := [sample for sample in samples if not sample.ok]:
            raise LabError(f"{len(failed)} 个请求没有答完（{failed[0].status}：{failed[0].error}）",
                           remedy="先停掉这台机器上别的负载再测")  # fmt: skip
        tokens = sum(sample.output_tokens for sample in samples)
        wall_s = max(each.finished_s for each in samples) - min(each.sent_s for each in samples)
        self.ttft_ms.append(median(each.ttft_ms for each in samples if each.ttft_ms is not None))
        self.output_tokens_per_s.append(tokens / wall_s)
        self.cpu_ms_per_token.append(1e3 * (self._cpu_s() - before) / tokens)

    def _cpu_s(self) -> float:
        used = self.router.cpu_times() if self.router else None
        return used.user + used.system if used else 0.0

    def figures(self, load: RouterLoad) -> Iterator[Series]:
        """What was seen."""
        labels = {"load": load.name, "path": self.path}
        yield Series("ttft_ms", "ms", self.ttft_ms, labels)
        yield Series("output_tokens_per_s", "tok/s", self.output_tokens_per_s, labels)
        if self.router:
            yield Series("router_cpu_ms_per_token", "ms", self.cpu_ms_per_token, labels)


def measure(repeats: int = 5, loads: Sequence[RouterLoad] = LOADS) -> Iterator[Series]:
    """Each load on each way in turn; which goes first changes.

    Args:
        repeats: of each load, on each way.
        loads: each on null servers of its own.

    Yields:
        of each load, by `path` (`direct`; `router`, before a replica; `pd`, between prefill and
        decode), the median `ttft_ms`, the `output_tokens_per_s` over the whole load, and of the
        last two `ttft_added_ms` and `throughput_ratio` against `direct`, and the router's
        `router_cpu_ms_per_token`. One value a repeat.

    Raises:
        LabError: a server did not start, or a request was not answered whole.
    """
    for load in loads:
        with _ways(load) as ways:
            for way in ways[1:]:
                run_in_process(load.plan(way.url, repeats))  # connections, caches: not counted
            for seed in range(repeats):
                first = seed % len(ways)
                for way in (*ways[first:], *ways[:first]):
                    way.take(load, seed)
        direct = ways[0]
        for way in ways:
            yield from way.figures(load)
            if way.router:
                yield from _against(direct, way, load)


def _against(direct: Way, way: Way, load: RouterLoad) -> Iterator[Series]:
    """What a router adds, of each repeat."""
    labels = {"load": load.name, "path": way.path}
    added = map(sub, way.ttft_ms, direct.ttft_ms)
    ratio = map(truediv, way.output_tokens_per_s, direct.output_tokens_per_s)
    yield Series("ttft_added_ms", "ms", list(added), labels)
    yield Series("throughput_ratio", "", list(ratio), labels)


@contextmanager
def _ways(load: RouterLoad) -> Iterator[tuple[Way, ...]]:
    """The null server, and a router before it of either kind.

    Raises:
        LabError: one did not come up.
    """
    with (
        null_server(**load.script) as server,
        null_server() as prefill,
        _router("--serve", server.url) as (served, alone),
        _router("--prefill", prefill.url, "--decode", server.url) as (split, between),
    ):
        yield Way("direct", server.url), Way("router", served, alone), Way("pd", split, between)


@contextmanager
def _router(*workers: str) -> Iterator[tuple[str, psutil.Process]]:
    """Starts a router before the workers that its options name; its address and process.

    Raises:
        LabError: it did not come up.
    """
    port = free_port()
    command = [sys.executable, "-m", "inferlab.engines.router", *workers, "--port", str(port)]
    with TemporaryDirectory() as folder:
        log = Path(folder) / "router.log"
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
            try:
                _until_listening(process, log)
                yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
            finally:
                process.terminate()
                try:
                    process.wait(timeout=ROUTER_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _until_listening(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + ROUTER_START_S
    while "listening" not in (told := log.read_text(encoding="utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            last = told.strip().splitlines()[-1:] or ["没有输出"]
            raise LabError(f"路由没有启动：{last[0]}", remedy="python -m inferlab.engines.router")
        time.sleep(0.05)


if __name__ == "__main__":
    run(__doc__, lambda _device, repeats, _config: measure(repeats))
