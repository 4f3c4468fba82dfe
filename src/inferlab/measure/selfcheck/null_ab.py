"""A/B of an engine with itself: how often a difference is claimed where there is none."""

from collections import Counter
from random import Random

from inferlab.errors import LabError
from inferlab.load.endpoint import Endpoint
from inferlab.load.null_process import null_server
from inferlab.load.runner import closed_loop
from inferlab.load.workloads import Lengths, random_requests
from inferlab.measure.repeats import METRICS, AbRuns, interleaved
from inferlab.measure.selfcheck.truth import Row
from inferlab.measure.summary import Summary, summarise

ATTEMPTS = 10


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
    starved = [0]
    claimed = [_claimed(_ab(endpoint, rounds, requests, seed, starved)) for seed in range(times)]
    quiet, wanted = sum(not names for names in claimed), -(-times * 9 // 10)
    name = f"同一服务自比 {times} 次（每次 {rounds} 轮、{len(METRICS)} 个指标）"
    value = f"{quiet} 次判为无差异"
    if found := Counter(each for names in claimed for each in names):
        value += "，误判：" + "、".join(f"{each} {n} 次" for each, n in found.items())
    if starved[0]:
        value += f"（另有 {starved[0]} 次运行因压测进程等不到 CPU 而重做）"
    return Row(name, value, f"≥ {wanted} 次", quiet >= wanted)


def _ab(endpoint: Endpoint, rounds: int, requests: int, seed: int, starved: list[int]) -> AbRuns:
    """One comparison; `starved` counts the runs that were made again for want of a CPU."""

    def run(number: int) -> Summary:
        for attempt in range(ATTEMPTS):
            random = Random(f"{seed}/{number}/{attempt}")
            specs = random_requests(requests, Lengths(32), Lengths(16), random)
            result = closed_loop(endpoint, specs, 8, check=False)
            if not result.starved:
                return summarise(result.samples)
            starved[0] += 1
        raise LabError(f"{ATTEMPTS} 次运行里压测进程都等不到 CPU", remedy="停掉本机的其他程序再测")

    return interleaved(run, run, rounds)


def _claimed(runs: AbRuns) -> list[str]:
    """Metrics that are said to differ."""
    return [name for name, item in runs.compare_all().items() if item.differs]
