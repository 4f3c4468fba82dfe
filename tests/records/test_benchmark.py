"""Benchmarks against the null server, and the records that they become."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from inferlab.errors import LabError, UsageError
from inferlab.load.null_process import NullProcess, null_server
from inferlab.load.workloads import Lengths, expected_hit_ratio
from inferlab.measure.goodput import Slo
from inferlab.records import store
from inferlab.records.ab import Ab, ab_record, both_grounds, comparisons, faster, overall, run_ab
from inferlab.records.benchmark import as_record, run_bench, run_capacity
from inferlab.records.compare import compare_records
from inferlab.records.one_run import Bench, Ground, Watch
from inferlab.records.plan import Level, Plan, Workload
from inferlab.records.runs import Run
from inferlab.records.schema import Record
from inferlab.repository import root

SHORT = Plan(Workload(output=Lengths(8)), requests=24, duration_s=0)


@pytest.fixture(scope="module")
def server() -> Iterator[NullProcess]:
    with null_server(ttft_ms=5, itl_ms=1) as process:
        yield process


def bench_of(server: NullProcess, *levels: Level, **changes: object) -> Bench:
    bench = Bench(server.endpoint(), SHORT, levels or (Level(concurrency=4),), repeats=2)
    return replace(bench, **changes)  # type: ignore[arg-type]


def recorded(bench: Bench) -> Record:
    ground = Ground.of(bench.endpoint)
    return as_record(bench, ground, run_bench(bench, ground))


def test_each_figure_has_a_value_a_repeat_and_an_interval(server: NullProcess):
    record = recorded(bench_of(server, Level(rate_per_s=100), Level(concurrency=4)))
    ttft = record.one("ttft_ms.p50", rate_per_s=100)
    assert len(ttft.values) == 2
    assert ttft.low <= ttft.mean <= ttft.high
    assert record.one("output_tokens_per_s", concurrency=4).mean > 0
    assert [run.labels for run in record.runs[:2]] == [{"rate_per_s": 100}, {"concurrency": 4}]


def test_a_record_is_read_back_as_it_was(server: NullProcess, tmp_path: Path):
    record = recorded(bench_of(server, slo=Slo.parse("ttft=1s")))
    assert store.load(store.save(record, tmp_path)) == record


def test_a_record_says_where_it_comes_from(server: NullProcess):
    record = recorded(bench_of(server, seed=7, command="./lab bench"))
    assert record.host is not None
    assert record.seed == 7
    assert record.engine and record.engine.endpoint == f"127.0.0.1:{server.port}"
    assert record.model and record.model.weights == "unknown"
    assert record.software.git_commit is None or len(record.software.git_commit) == 40
    table = record.runs[0].requests
    assert table and len(table.scheduled_s) == len(table.status) == 24


def test_failures_are_counted_by_kind_and_kept_out(server: NullProcess):
    with null_server(ttft_ms=5, itl_ms=1, cut=0.4, seed=3) as cutting:
        record = recorded(bench_of(cutting, slo=Slo.parse("ttft=10s"), repeats=1))
    summary = record.runs[0].summary
    assert summary.failures["cut"] == summary.requests - summary.ok > 0
    assert record.one("goodput.share").mean == pytest.approx(summary.ok / summary.requests)


def test_a_server_that_dies_leaves_a_partial_record():
    with null_server(ttft_ms=5, itl_ms=1) as server:
        bench = bench_of(server, plan=replace(SHORT, requests=30), repeats=3)
        ground = Ground.of(bench.endpoint)

        class KillAfterFirst(Watch):
            def ended(self, run: Run) -> None:
                server.kill()

        outcome = run_bench(bench, ground, KillAfterFirst())
    record = as_record(bench, ground, outcome)
    assert "连不上" in record.partial
    assert len(record.one("ttft_ms.p50").values) == 1


def test_an_endpoint_that_cannot_be_used_is_refused_before_anything(server: NullProcess):
    with pytest.raises(LabError, match="没有模型 'nope'"):
        Ground.of(server.endpoint(model="nope"))


def test_capacity_is_searched_and_repeated():
    with null_server(ttft_ms=5, itl_ms=1, slots=1) as server:
        # One slot of 12 ms: about 80 answers a second at best, whatever is offered.
        plan = replace(SHORT, requests=40, arrival="constant")
        bench = bench_of(server, Level(rate_per_s=20), plan=plan, slo=Slo.parse("ttft=60ms"),
                         share=0.9)  # fmt: skip
        ground = Ground.of(bench.endpoint)
        outcome = run_capacity(bench, ground, precision=0.5)
    assert outcome.capacity and 5 < outcome.capacity.rate_per_s < 200
    confirmed = [run for run in outcome.runs if run.labels["phase"] == "capacity"]
    assert len(confirmed) == 2


def test_capacity_needs_an_slo(server: NullProcess):
    bench = bench_of(server, Level(rate_per_s=1))
    with pytest.raises(UsageError, match="--slo"):
        run_capacity(bench, Ground.of(bench.endpoint))


def test_ab_finds_the_faster_server(server: NullProcess):
    with null_server(ttft_ms=40, itl_ms=4) as slow:
        pair = Ab(bench_of(slow, repeats=3), bench_of(server, repeats=3))
        grounds = both_grounds(pair)
        record = ab_record(pair, grounds, run_ab(pair, grounds))
    verdicts = {each.name: each.verdict for each in record.comparisons}
    assert verdicts["tpot_ms.p50"] == "B faster"
    assert overall(record.comparisons) == "B faster"
    assert [run.labels["side"] for run in record.runs] == list("ABBAAB")


def test_ab_says_nothing_of_a_single_round(server: NullProcess):
    pair = Ab(bench_of(server), bench_of(server))
    grounds = both_grounds(pair)
    runs = run_ab(pair, grounds).runs[:3]
    assert comparisons(runs) == []


@pytest.mark.parametrize(
    ("name", "verdict", "winner"),
    [
        ("ttft_ms.p50", "lower", "B faster"),
        ("ttft_ms.p50", "higher", "A faster"),
        ("output_tokens_per_s", "higher", "B faster"),
        ("output_tokens_per_s", "lower", "A faster"),
        ("itl_ms.p99", "no difference", "no difference"),
    ],
)
def test_faster_knows_which_way_is_better(name: str, verdict: str, winner: str):
    assert faster(name, verdict) == winner


def test_compare_pairs_figures_of_the_same_condition(server: NullProcess):
    one, two = (recorded(bench_of(server, seed=seed)) for seed in (1, 2))
    found = compare_records(one, two)
    assert {pair.a.name for pair in found.pairs} >= {"ttft_ms.p50", "output_tokens_per_s"}
    other = two.model_copy(update={"device": "NVIDIA H200", "partial": "被 Ctrl-C 中断"})
    caveats = compare_records(one, other).caveats
    assert any("设备不同" in line for line in caveats)
    assert any("不完整" in line for line in caveats)


def test_a_shared_prefix_gives_the_hit_ratio_it_names():
    load = Workload(kind="prefix", prompt=Lengths(256), prefix_tokens=192)
    specs = load.specs(100, Random(0), "completions")
    assert expected_hit_ratio(specs) == pytest.approx(0.75 * 0.99, abs=0.01)


def test_two_repeats_send_different_prompts_and_one_seed_the_same():
    load = Workload()
    first, again, other = (
        load.specs(2, Random(seed), "completions") for seed in ("0/0", "0/0", "0/1")
    )
    assert first == again
    assert first[0].prompt != other[0].prompt


def test_chats_and_trace_times(server: NullProcess, tmp_path: Path):
    chat = Plan(
        Workload(kind="chat", prompt=Lengths(8), output=Lengths(4)), requests=3, duration_s=0
    )
    record = recorded(bench_of(server, Level(rate_per_s=100), plan=chat, repeats=1))
    table = record.runs[0].requests
    assert table and set(table.label) == {"turn1", "turn2", "turn3"}
    file = tmp_path / "t.jsonl"
    lines = [f'{{"prompt": "hi", "max_tokens": 4, "timestamp": {at}}}' for at in (5.0, 5.1, 5.3)]
    file.write_text("\n".join(lines))
    traced = Plan(Workload(kind="file", file=file), duration_s=0)
    record = recorded(bench_of(server, Level(), plan=traced, repeats=1))
    table = record.runs[0].requests
    assert table and table.scheduled_s == pytest.approx([0, 0.1, 0.3])
    assert record.parameters["workload"]["file"] == "t.jsonl"


def test_records_of_version_1_still_load():
    paths = sorted((root() / "results").rglob("*.json"))
    old = [path for path in paths if json.loads(path.read_text())["schema_version"] == 1]
    assert old
    for path in paths:
        assert store.load(path).kind == "experiment" or path not in old


def test_a_full_place_does_not_lose_a_record(server: NullProcess, tmp_path: Path):
    record = recorded(bench_of(server, repeats=1, name="kept-in-test"))
    blocker = tmp_path / "file"
    blocker.write_text("")
    path, problem = store.keep(record, blocker / "x.json")
    try:
        assert "写不了记录" in problem
        assert "写不了记录" in store.load(path).partial
    finally:
        path.unlink()
