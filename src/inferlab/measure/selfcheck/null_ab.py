"""A/B of an engine with itself: how often a difference is claimed where there is none."""

from dataclasses import replace
from random import Random

from inferlab.load.endpoint import Endpoint
from inferlab.load.null_process import null_server
from inferlab.load.runner import closed_loop
from inferlab.load.workloads import Lengths, random_requests
from inferlab.measure.repeats import METRICS, AbRuns, interleaved
from inferlab.measure.selfcheck.truth import Row
from inferlab.measure.summary import Summary, summarise


def null_ab(url: str = "", times: int = 20, rounds: int = 5, requests: int = 40) -> list[Row]:
    """One server as A and as B: `no difference` at least 9 times in 10.

    Seven figures are compared each time; one that differs is enough to count against.

    Args:
        url: a running engine; empty for a null server with scattered TTFT.
        times: A/B comparisons.
        rounds: of each comparison.
        requests: per run.
    """
    if url:
        return [_row(Endpoint(url), times, rounds, requests)]
    with null_server(ttft_ms=20, ttft_jitter=0.3, itl_ms=2) as server:
        return [_row(server.endpoint(), times, rounds, requests)]


def _row(endpoint: Endpoint, times: int, rounds: int, requests: int) -> Row:
    quiet = sum(_no_difference(_ab(endpoint, rounds, requests, seed)) for seed in range(times))
    wanted = -(-times * 9 // 10)
    name = f"同一服务自比 {times} 次（每次 {rounds} 轮、{len(METRICS)} 个指标）"
    return Row(name, f"{quiet} 次判为无差异", f"≥ {wanted} 次", quiet >= wanted)


def _ab(endpoint: Endpoint, rounds: int, requests: int, seed: int) -> AbRuns:
    def run(number: int) -> Summary:
        random = Random(1000 * seed + number)
        specs = random_requests(requests, Lengths(32), Lengths(16), random)
        specs = [replace(spec, label="ab") for spec in specs]
        return summarise(closed_loop(endpoint, specs, 8, check=False).samples)

    return interleaved(run, run, rounds)


def _no_difference(runs: AbRuns) -> bool:
    return not any(item.differs for item in runs.compare_all().values())
