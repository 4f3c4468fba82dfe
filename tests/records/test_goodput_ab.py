"""Ladders of rates on two servers; on the null server."""

from dataclasses import replace

import pytest

from inferlab.errors import UsageError
from inferlab.load.null_process import null_server
from inferlab.load.workloads import Lengths
from inferlab.measure.goodput import Slo
from inferlab.records.ab import Ab, ab_record, both_grounds
from inferlab.records.benchmark import Outcome
from inferlab.records.goodput_ab import (
    CAPACITY,
    Bracket,
    OpenEnds,
    next_rung,
    open_ends,
    run_ladders,
    settled,
    with_capacities,
)
from inferlab.records.one_run import Bench
from inferlab.records.plan import Level, Plan, Workload
from inferlab.records.runs import GoodputFigures, Run, RunSummary, SteadyVerdict
from inferlab.records.schema import Record

LADDER = (Level(rate_per_s=20), Level(rate_per_s=200))


def ladders_record(pair: Ab, runs: list[Run]) -> Record:
    """As `./lab record` makes it, of these runs."""
    outcome = Outcome(runs=runs)
    return with_capacities(ab_record(pair, both_grounds(pair), outcome))


def test_each_round_climbs_to_the_knee_and_later_ones_begin_there():
    plan = Plan(Workload(output=Lengths(8)), arrival="constant", requests=60, duration_s=0)
    with null_server(ttft_ms=5, itl_ms=1, slots=1) as slow, null_server(ttft_ms=5) as fast:
        # One slot of 12 ms: 80 requests a second at most, whatever is asked.
        a = Bench(slow.endpoint(), plan, LADDER, repeats=2, slo=Slo(ttft_ms=60))
        pair = Ab(a, replace(a, endpoint=fast.endpoint()))
        record = ladders_record(pair, run_ladders(pair, both_grounds(pair)).runs)
    runs = record.runs
    seen = [(run.repeat, run.labels["side"], run.labels["rate_per_s"]) for run in runs]
    assert seen[:4] == [(0, "A", 20), (0, "A", 200), (0, "B", 20), (0, "B", 200)]
    assert seen[4:] == [(1, "B", 200), (1, "A", 20), (1, "A", 200)], "B held the top rung"
    assert len({(run.repeat, run.labels["rate_per_s"], run.seed) for run in runs}) == 4, (
        "both sides get the same seeds"
    )
    slow_side, fast_side = (record.one(CAPACITY, side=side) for side in "AB")
    assert len(slow_side.values) == 2 and all(20 < value < 200 for value in slow_side.values)
    assert fast_side.values == [200, 200]
    [compared] = record.comparisons
    assert (compared.name, compared.verdict) == (CAPACITY, "B faster")
    notes = record.parameters
    assert (notes["lower_bound_a"], notes["lower_bound_b"]) == (False, True)
    assert not settled(record)
    assert open_ends(record) == OpenEnds(low=False, high=True), "B may be better still"


def test_the_first_round_begins_in_the_middle_of_the_ladder():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", requests=12, duration_s=0)
    ladder = tuple(Level(rate_per_s=rate) for rate in (10, 20, 40, 80))
    with null_server(ttft_ms=1) as quick, null_server(ttft_ms=100) as late:
        a = Bench(quick.endpoint(), plan, ladder, repeats=2, slo=Slo(ttft_ms=60))
        pair = Ab(a, replace(a, endpoint=late.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs
    rates = {side: [run.labels["rate_per_s"] for run in runs
                    if (run.labels["side"], run.repeat) == (side, 0)] for side in "AB"}  # fmt: skip
    assert rates == {"A": [20, 40, 80], "B": [20, 10]}, "up while it holds, down until it does"


def test_an_unfinished_ladder_is_left_out():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", requests=12, duration_s=0)
    with null_server(ttft_ms=1, itl_ms=1) as server, null_server(ttft_ms=1, itl_ms=1) as other:
        a = Bench(server.endpoint(), plan, LADDER, repeats=2, slo=Slo(ttft_ms=60))
        pair = Ab(a, replace(a, endpoint=other.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs
        # Both hold the top rung, where the second round begins and ends; here A's is not made.
        record = ladders_record(pair, runs[:-1])
    assert [len(figure.values) for figure in record.select(CAPACITY)] == [1, 1]
    assert record.comparisons == []
    assert not settled(record.model_copy(update={"runs": runs[:1]})), "no round was finished"


def test_what_is_sent_in_the_ramp_does_not_count():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", duration_s=2.0, ramp_s=1.2)
    with null_server(ttft_ms=1, itl_ms=1) as server, null_server(ttft_ms=1, itl_ms=1) as other:
        a = Bench(server.endpoint(), plan, LADDER[:1], repeats=2, slo=Slo(ttft_ms=500))
        pair = Ab(a, replace(a, endpoint=other.endpoint()))
        runs = run_ladders(pair, both_grounds(pair)).runs
    for run in runs:
        assert run.window_s == (pytest.approx(1.2, abs=0.1), pytest.approx(2, abs=0.1))
        assert run.goodput and run.goodput.requests_per_s == pytest.approx(20, rel=0.15)


def run_at(rate: float, share: float, verdict: str = "steady", side: str = "A") -> Run:
    """As the ladder sees it: what share of its requests met the SLO."""
    return Run.model_construct(
        labels={"side": side, "rate_per_s": rate}, repeat=0, partial="",
        summary=RunSummary.model_construct(ok=1),
        goodput=GoodputFigures(requests_per_s=rate, output_tokens_per_s=0, share=share),
        steady=SteadyVerdict(verdict=verdict),
    )  # fmt: skip


def test_the_knee_lies_where_the_share_falls_through_what_is_asked():
    climb = [run_at(20, 1.0), run_at(22, 0.95), run_at(24, 0.45)]
    knee = Bracket.of(climb, 0.9)
    assert knee.rate_per_s == pytest.approx(22.2)
    assert (knee.held, knee.broke) == (climb[1], climb[2])
    assert Bracket.of(climb[:2], 0.9) == Bracket(22, climb[1], None), "a lower bound"
    assert Bracket.of(climb[2:], 0.9) == Bracket(24, None, climb[2]), "an upper bound"
    again = [*climb, run_at(26, 0.92)]
    assert Bracket.of(again, 0.9).rate_per_s == pytest.approx(22.2), "what holds above it is luck"


def test_a_later_round_goes_down_until_a_rate_holds_and_then_up_until_one_does_not():
    ladder = [Level(rate_per_s=rate) for rate in (4, 5, 6, 7)]

    def after(*climb: Run) -> float | None:
        tried = {run.labels["rate_per_s"] for run in climb}
        left = [level for level in ladder if level.rate_per_s not in tried]
        level = next_rung(left, climb, 0.9)
        return level.rate_per_s if level else None

    held = {rate: run_at(rate, 0.9) for rate in (4, 5, 6, 7)}
    late = {rate: run_at(rate, 0.89) for rate in (4, 5, 6, 7)}
    assert after() == 4
    assert after(held[5]) == 6 and after(held[5], held[6]) == 7
    assert after(late[6]) == 5 and after(late[5], late[6]) == 4
    assert after(held[5], late[6]) is None, "the knee is between them"
    assert after(held[7]) is None and after(late[4]) is None, "the ladder ends here"
    growing = run_at(5, 0.95, "overloaded")
    assert after(growing) == 6, "the share decides; what is in flight may grow by chance"


def test_bounds_and_growth_are_noted():
    plan = Plan(Workload(output=Lengths(2)), arrival="constant", requests=12, duration_s=0)
    with null_server(ttft_ms=1, itl_ms=1) as server:
        bench = Bench(server.endpoint(), plan, LADDER, repeats=2, slo=Slo(ttft_ms=60), share=0.9)
        pair = Ab(bench, bench)
        pattern = ladders_record(pair, run_ladders(pair, both_grounds(pair)).runs)
    whole = {(run.labels["side"], run.repeat): run for run in pattern.runs}

    def record(*seen: Run) -> Record:
        """The same ladders in both rounds, on whole runs."""
        runs = [
            whole[each.labels["side"], number].model_copy(
                update={"labels": each.labels, "goodput": each.goodput, "steady": each.steady}
            )
            for number in (0, 1) for each in seen
        ]  # fmt: skip
        return with_capacities(pattern.model_copy(update={"runs": runs}))

    a = [run_at(20, 1.0, "overloaded"), run_at(200, 0.2)]
    found = record(*a, run_at(20, 0.6, side="B"))
    notes = found.parameters
    assert (notes["upper_bound_b"], notes["lower_bound_a"]) == (True, False)
    assert (notes["growing_where_held_a"], notes["growing_where_held_b"]) == (2, 0)
    assert open_ends(found) == OpenEnds(low=True, high=False), "B's rate may be lower still"
    turned = record(run_at(20, 0.6), *(run_at(r, s, side="B") for r, s in ((20, 1), (200, 0.2))))
    assert open_ends(turned) == OpenEnds(low=False, high=True), "A's rate may be lower still"
    assert [figure.values for figure in found.select(CAPACITY)][1] == [20, 20]
    both = record(*a, run_at(20, 1.0, side="B"), run_at(200, 0.6, side="B"))
    assert settled(both)
    [compared] = both.comparisons
    assert compared.ratio == pytest.approx((20 + 180 * 0.1 / 0.4) / (20 + 180 * 0.1 / 0.8))
    again = with_capacities(both)
    assert again == both, "all of it comes from the runs"


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
