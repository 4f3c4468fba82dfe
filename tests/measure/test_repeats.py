"""Repeats and interleaved A/B."""

import numpy as np
import pytest
from handmade_samples import sample

from inferlab.errors import LabError, UsageError
from inferlab.load import Status
from inferlab.measure.repeats import METRICS, AbRuns, interleaved, interval, metric, repeat
from inferlab.measure.summary import Summary, summarise


def run_like(itl_s: float) -> Summary:
    return summarise([sample(0.1 * i, itl_s=itl_s, ttft_s=5 * itl_s) for i in range(20)])


def noisy_engine(seed: int, speed: float = 1.0):
    random = np.random.default_rng(seed)
    return lambda number: run_like(0.02 / speed * random.lognormal(0, 0.02))


def test_figures_by_name() -> None:
    run = run_like(0.02)
    assert metric(run, "ttft_ms.p99") == pytest.approx(100)
    assert metric(run, "itl_ms") == pytest.approx(20)
    assert metric(run, "ok") == 20
    assert all(metric(run, name) > 0 for name in METRICS)
    for wrong in ("ttfts", "ttft_ms.p42", "failures", "__doc__"):
        with pytest.raises(UsageError, match="没有名为"):
            metric(run, wrong)
    with pytest.raises(LabError, match="没有 ttft_ms"):
        metric(summarise([sample(status=Status.CUT)]), "ttft_ms.p50")


def test_repeats_give_an_interval() -> None:
    runs = repeat(noisy_engine(1), 5)
    seen = interval(runs, "tpot_ms.p50")
    assert seen.n == 5
    assert seen.contains(20)


def test_ab_takes_turns_and_shares_the_round() -> None:
    calls: list[str] = []

    def engine(name: str):
        def run(number: int) -> Summary:
            calls.append(f"{name}{number}")
            return run_like(0.02)

        return run

    interleaved(engine("a"), engine("b"), 3, on_round=lambda number: calls.append("|"))
    assert "".join(calls) == "a0b0|b1a1|a2b2|"
    with pytest.raises(UsageError, match="至少要 2 轮"):
        interleaved(engine("a"), engine("b"), 1)


def test_a_real_difference_is_found_with_its_size() -> None:
    runs = interleaved(noisy_engine(1), noisy_engine(2, speed=1.2))
    seen = runs.compare("tpot_ms.p50")
    assert seen.verdict == "lower"
    assert seen.ratio.contains(1 / 1.2)


def test_an_engine_hardly_ever_differs_from_itself() -> None:
    def claims(seed: int) -> bool:
        runs = interleaved(noisy_engine(seed), noisy_engine(seed + 1000))
        return any(item.differs for item in runs.compare_all().values())

    assert sum(claims(seed) for seed in range(60)) <= 6


def test_what_does_not_matter_is_not_claimed() -> None:
    a = [run_like(0.0200), run_like(0.02001), run_like(0.02)]
    b = [run_like(0.02005), run_like(0.02006), run_like(0.02005)]
    assert AbRuns(a, b).compare("tpot_ms.p50").verdict == "no difference"
    assert AbRuns(a, b).compare("tpot_ms.p50", smallest=0).verdict == "higher"
