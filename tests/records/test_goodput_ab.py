"""Ladders of rates on two servers; on the null server."""

from dataclasses import replace

import pytest

from inferlab.errors import UsageError
from inferlab.load.null_process import null_server
from inferlab.load.workloads import Lengths
from inferlab.measure.goodput import Slo
from inferlab.records.ab import Ab, both_grounds
from inferlab.records.goodput_ab import (
    BEST,
    goodput_comparisons,
    goodput_figures,
    is_over,
    ladder_notes,
    next_rung,
    run_ladders,
)
from inferlab.records.one_run import Bench
from inferlab.records.plan import Level, Plan, Workload
from inferlab.records.runs import GoodputFigures, Run, RunSummary, SteadyVerdict

LADDER = (Level(rate_per_s=20), Level(rate_per_s=200))


def test_the_best_of_each_rounds_ladder_is_compared():
    plan = Plan(Workload(output=Lengths(8)), arrival="constant", requests=60, duration_s=0)
    with null_server(ttft_ms=5, itl_ms=1, slots=1) as slow, null_server(ttft_ms=5) as fast:
        # One slot of 12 ms: about 80 answers a second at best.
        a = Bench(slow.endpoint(), plan, LADDER, repeats=2, slo=Slo(ttft_ms=60))
        pair = Ab(a, replace(a, endpoint=fast.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs
    seen = [(run.repeat, run.labels["side"], run.labels["rate_per_s"]) for run in runs[:4]]
    assert seen == [(0, "A", 20), (0, "A", 200), (0, "B", 20), (0, "B", 200)]
    by_seed = {(run.repeat, run.labels["rate_per_s"], run.seed) for run in runs}
    # The faster side begins its second round at the top rung, where it held.
    assert len(by_seed) == 4, "both sides get the same seeds"
    later = [(run.labels["side"], run.labels["rate_per_s"]) for run in runs[4:]]
    assert later[0] == ("B", 200) and later[1][0] == "A"
    best = {
        figure.labels["side"]: figure for figure in goodput_figures(runs) if figure.name == BEST
    }
    assert len(best["A"].values) == 2
    assert best["A"].mean < 80 < best["B"].mean
    [compared] = goodput_comparisons(runs)
    assert compared.verdict == "B faster"
    notes = ladder_notes(runs, 0.9)
    assert notes["lower_bound_b"] and notes["best_rates_b"] == [200, 200]


def test_an_unfinished_ladder_is_left_out():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", requests=12, duration_s=0)
    with null_server(ttft_ms=1, itl_ms=1) as server, null_server(ttft_ms=1, itl_ms=1) as other:
        a = Bench(server.endpoint(), plan, LADDER, repeats=2, slo=Slo(ttft_ms=60))
        pair = Ab(a, replace(a, endpoint=other.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs[:-1]
    assert goodput_comparisons(runs) == []
    assert all(len(f.values) == 1 for f in goodput_figures(runs) if f.name == BEST)


def test_what_is_sent_in_the_ramp_does_not_count():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", duration_s=2.0, ramp_s=1.2)
    with null_server(ttft_ms=1, itl_ms=1) as server, null_server(ttft_ms=1, itl_ms=1) as other:
        a = Bench(server.endpoint(), plan, LADDER[:1], repeats=2, slo=Slo(ttft_ms=500))
        pair = Ab(a, replace(a, endpoint=other.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs
    for run in runs:
        assert run.window_s == (pytest.approx(1.2, abs=0.1), pytest.approx(2, abs=0.1))
        assert run.goodput and run.goodput.requests_per_s == pytest.approx(20, rel=0.15)


def run_at(rate: float, goodput: float, verdict: str) -> Run:
    """Of side A, as the ladder sees it."""
    return Run.model_construct(
        labels={"side": "A", "rate_per_s": rate}, repeat=0, partial="",
        summary=RunSummary.model_construct(ok=1),
        goodput=GoodputFigures(requests_per_s=goodput, output_tokens_per_s=0, share=1),
        steady=SteadyVerdict(verdict=verdict),
    )  # fmt: skip


def test_a_climb_ends_on_the_plateau_and_its_best_is_no_lower_bound():
    climbed = [run_at(20, 20, "steady"), run_at(23, 22.3, "overloaded")]
    assert not is_over(climbed), "it still rises"
    assert is_over([*climbed, run_at(27, 22.2, "overloaded")])
    assert not is_over([*climbed, run_at(27, 22.2, "steady")]), "one step of scatter"
    assert is_over([*climbed, run_at(27, 12, "steady")])
    other = [run.model_copy(update={"labels": run.labels | {"side": "B"}}) for run in climbed]
    assert ladder_notes([*climbed, *other], 0.9)["lower_bound_a"] is False
    steady = [run.model_copy(update={"steady": SteadyVerdict(verdict="steady")}) for run in other]
    assert ladder_notes([*climbed, *steady], 0.9)["lower_bound_b"] is True


def test_a_climb_that_ended_while_its_rate_held_is_a_lower_bound():
    """Fewer requests arrived at the higher rate, so that goodput fell; all met the SLO."""
    low, high = run_at(4, 4.28, "steady"), run_at(5, 3.49, "steady")
    failed = high.model_copy(update={"goodput": high.goodput.model_copy(update={"share": 0.4})})
    other = [run.model_copy(update={"labels": run.labels | {"side": "B"}}) for run in (low, failed)]
    notes = ladder_notes([low, high, *other], 0.9)
    assert (notes["lower_bound_a"], notes["lower_bound_b"]) == (True, False)
    assert notes["best_rates_a"] == notes["best_rates_b"] == [4]


def test_a_later_round_begins_at_the_best_and_goes_down_until_a_rate_holds():
    ladder = [Level(rate_per_s=rate) for rate in (4, 5, 6, 7)]

    def after(*climb: Run) -> float | None:
        tried = {run.labels["rate_per_s"] for run in climb}
        left = [level for level in ladder if level.rate_per_s not in tried]
        level = next_rung(left, climb, 0.9)
        return level.rate_per_s if level else None

    four, five, six = run_at(4, 4, "steady"), run_at(5, 5, "steady"), run_at(6, 5.9, "steady")
    queued, fallen = run_at(6, 5, "overloaded"), run_at(7, 4, "overloaded")
    late = five.model_copy(update={"goodput": five.goodput.model_copy(update={"share": 0.8})})
    assert after(five) == 6 and after(five, six) == 7
    assert after(five, queued) is None and after(five, six, fallen) is None
    assert after(late) == 4 and after(four, late) == 6 and after(queued) == 5
    assert after(late, six) == 4, "the lower bound of the SLO's share is sought below"
    assert after(four, late, queued) is None


def test_both_seeds_of_binomial_arrivals_offer_the_same_load():
    plan = Plan(Workload(output=Lengths(2)), arrival="binomial", duration_s=2.0, ramp_s=1.0)
    by_number = replace(plan, duration_s=0, requests=17)
    with null_server(ttft_ms=1, itl_ms=1) as server:
        level = Level(rate_per_s=20)
        for seed in "ab":
            samples = plan.run(server.endpoint(), level, seed).whole()
            assert len(samples) == 40
            assert sum(sample.scheduled_s >= 1.0 for sample in samples) == 20
        assert len(by_number.run(server.endpoint(), level, "a").whole()) == 17


def test_ladders_need_rates_and_an_slo():
    with null_server() as server:
        bench = Bench(server.endpoint(), Plan(), (Level(concurrency=2),), repeats=2)
        pair = Ab(bench, bench)
        grounds = both_grounds(pair)
        with pytest.raises(UsageError, match="goodput_ab"):
            run_ladders(pair, grounds)
