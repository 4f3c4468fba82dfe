"""Chapter 5: its arithmetic, and its records as pictures and tables, also where there are none."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from statistics import fmean

import pytest
from IPython.display import Markdown

from inferlab.book import chapter05_lab, chapter05_records, live
from inferlab.book.chapter03 import known_shape
from inferlab.book.chapter05 import blocks_of, chunk_floors_ms, steps_of
from inferlab.book.shown_records import ShownRecords
from inferlab.engines.processes import ProcessId, start_in_own_session
from inferlab.engines.temporary import Recipe, TemporaryEngine
from inferlab.hardware.host import HostInfo
from inferlab.records import store
from inferlab.records.rooflines import measured_ceilings
from inferlab.records.schema import Comparison, Model, Record

sys.path.insert(0, str(Path(__file__).parents[1] / "plots"))
import chapter05_data as data


def record(experiment: str, figures=(), **changes) -> Record:
    pattern = store.find("chapter03", "ceilings", "h200")
    model = Model(name="Qwen/Qwen3-8B", weights="random", dtype="bfloat16")
    fields = {"lab": "chapter05", "experiment": experiment, "figures": list(figures)}
    return pattern.model_copy(update=fields | {"model": model} | changes)


def capacity() -> Record:
    rows = {"reported": 800_000.0, "from_available": 800_016.0, "before_start": 816_000.0}
    return record("kv_capacity", [data.figure("kv_tokens", "token", value, source=source)
                                  for source, value in rows.items()])  # fmt: skip


def saturation() -> Record:
    rows = ((1, 190, 5.2), (64, 4300, 12), (256, 6300, 33))
    return record("saturation", [
        figure
        for n, speed, ms in rows
        for figure in (data.figure("output_tokens_per_s", "tok/s", speed, concurrency=n),
                       data.figure("tpot_ms.p50", "ms", ms, concurrency=n),
                       data.figure("mfu", "", speed / 1e4, concurrency=n))
    ])  # fmt: skip


def better() -> list[Comparison]:
    return [Comparison(name="output_tokens_per_s", ratio=1.3, low=1.2, high=1.4, confidence=0.95,
                       verdict="B faster")]  # fmt: skip


RECORDS = {
    "kv_capacity": capacity(),
    "static_batching": record("static_batching", comparisons=better(), parameters={
        "timeline": data.timelines(), "batch": 4}),
    "step_profile": record("step_profile", [
        figure.model_copy(update={"labels": figure.labels | {"batch": 1, "context": 128}})
        for figure in data.profile()]),
    "saturation": saturation(),
    "decode_grid": record("decode_grid", data.grid()),
    "knee": record("decode_grid", data.bent_grid()),
    "graphs": record("graphs", comparisons=better(), parameters={
        "engine_a": "eager", "engine_b": "defaults"}),
    "single_stream_ab": record("single_stream_ab", [
        data.figure("tpot_ms.mean", "ms", 5.2, side="A"),
        data.figure("tpot_ms.mean", "ms", 4.4, side="B")]),
    "preemption": record("preemption", [data.figure("itl_ms", "ms", 30, part="p99"),
                                        data.figure("preemptions", "", 11)]),
    "knob_seqs": record("knob_seqs", comparisons=better()),
} | {
    f"chunked_{size}": record(f"chunked_{size}", [
        data.figure("ttft_ms", "ms", 100, request="long", part="p50"),
        data.figure("longest_itl_ms", "ms", size / 10, request="chat", part="p90"),
        data.figure("ttft_ms", "ms", 100, request="chat", part="p50")])
    for size in (512, 8192)
}  # fmt: skip


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: RECORDS.get(experiment))


@pytest.mark.parametrize("name", [
    "kv_capacity capacity", "static_batching batching",
    "saturation saturation", "saturation utilisation", "decode_grid grid",
    "single_stream_ab stream_shares", "decode_grid grid_shares", "knee knee",
])  # fmt: skip
def test_a_record_is_shown(name: str, recorded: None) -> None:
    experiment, draw = name.split()
    found = chapter05_records.shown(experiment, getattr(chapter05_records, draw))
    if isinstance(found, Markdown):
        assert "还没有" not in found.data
    else:
        assert len(found._repr_png_()) > 10_000


def test_one_streams_share_of_the_roofline(recorded: None) -> None:
    rows = chapter05_records.shown("single_stream_ab", chapter05_records.stream_shares).data
    assert "68." in rows.splitlines()[2] and "80." in rows.splitlines()[3]  # of 3.54 ms


def test_each_start_counts_once_and_repeats_on_it_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def ab(experiment: str, seconds: float, defaults: float, other: float) -> Record:
        startup = {"defaults": {"seconds": seconds}, experiment: {"seconds": 9.0}}
        return record(experiment, [data.figure("tpot_ms.mean", "ms", defaults, side="A"),
                                   data.figure("tpot_ms.mean", "ms", other, side="B")],
                      parameters={"engine_a": "defaults", "engine_b": experiment,
                                  "startup": startup})  # fmt: skip

    anew = data.figure("tpot_ms.mean", "ms", 4.7).model_copy(update={"values": [4.6, 4.8, 4.7]})
    found = {
        "knob_compile": ab("knob_compile", 100.0, 5.0, 4.6),
        "knob_splits": ab("knob_splits", 100.0, 5.01, 4.9),  # served by the same start of A
        "knob_search": ab("knob_search", 101.0, 5.2, 4.5),
        "compile_starts": record("compile_starts", [anew], parameters={
            "startup": {"latency": {"seconds": 9.0}}, "starts": [{"seconds": 9.0}] * 3}),
    }  # fmt: skip
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: found.get(experiment))
    rows = [row.strip("| ").split(" | ") for row in chapter05_records.starts().data.splitlines()]
    cells = {name: (count, tpots) for name, count, tpots, _ in rows[2:]}
    assert cells["defaults"] == ("2", "5.00、5.20")
    assert cells["latency"] == ("3", "4.60、4.70、4.80")
    assert cells["knob_search"] == ("1", "4.50")


def test_ladders_say_which_runs_were_not_steady() -> None:
    record = store.find("chapter05", "goodput_fp8_ab", "h200")
    head, _, *rows = chapter05_records.ladders(record).data.splitlines()
    assert "defaults 达标" in head and "throughput-fp8：未到稳态" in head
    cells = [row.strip("| ").split(" | ") for row in rows]
    counts = [cell.split(" / ") for row in cells for cell in (row[2], row[4]) if "/" in cell]
    assert sum(int(of) for _, of in counts) == len(record.runs)
    unsteady = sum(run.steady.verdict != "steady" for run in record.runs if not run.partial)
    assert sum(int(some) for some, _ in counts) == unsteady > 0


def test_power_and_energy_of_both_sides_stand_at_each_rate() -> None:
    record = store.find("chapter05", "goodput_fp8_ab", "h200")
    rows = chapter05_records.power(record).data.splitlines()[2:]
    climbed = {(run.labels["side"], run.labels["rate_per_s"]) for run in record.runs}
    assert len(rows) == len(climbed)
    last = [run.telemetry for run in record.runs if run.labels == {"side": "B", "rate_per_s": 33.0}]
    joules = [each["energy_j"] / each["output_tokens"] for each in last]
    cells = rows[-1].strip("| ").split(" | ")
    assert cells[:2] == ["33", "throughput-fp8"]
    assert float(cells[2]) == round(fmean(each["energy_power_w"] for each in last))
    assert cells[3] == f"{fmean(each['sm_clock_mhz'] for each in last):,.0f}"
    assert float(cells[4]) == pytest.approx(fmean(joules), rel=0.01)


def test_a_rate_without_a_whole_run_is_a_dash() -> None:
    record = store.find("chapter05", "goodput_fp8_ab", "h200")
    cut = {"side": "A", "rate_per_s": 21.0}
    runs = [run.model_copy(update={"partial": "中断"}) if run.labels == cut else run
            for run in record.runs]  # fmt: skip
    partial = record.model_copy(update={"runs": runs})
    first = chapter05_records.ladders(partial).data.splitlines()[2]
    assert first.startswith("| 21 | — | — | 100% | 0 / 1 |")


def test_pictures_of_several_records_take_those_there_are(recorded: None) -> None:
    chunks = chapter05_records.chunks()
    assert {text.get_text() for text in chunks.axes[0].texts} == {"512", "8,192"}
    profiles = chapter05_records.attribution()
    assert len(profiles._repr_png_()) > 10_000
    assert [text.get_text() for text in profiles.axes[0].get_yticklabels()] == ["默认"]
    knobs = chapter05_records.tuning()
    assert "1.30×  保留" in [text.get_text() for text in knobs.axes[0].texts]


def test_tables_have_intervals_and_sides(recorded: None) -> None:
    assert "+0.00%" in chapter05_records.shown("kv_capacity", chapter05_records.capacity).data
    gains = chapter05_records.gains("graphs", "static_batching", "none_yet").data
    assert "eager → defaults" in gains and "静态 → 连续" in gains and "1.200–1.400" in gains
    row = chapter05_records.side_by_side({"小": "preemption"}, ["preemptions", "itl_ms p99"]).data
    assert "| 小 | 11 | 30 |" in row


def test_what_has_no_record_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: None)
    texts = [
        chapter05_records.shown("saturation", chapter05_records.saturation),
        chapter05_records.chunks(), chapter05_records.attribution(),
        chapter05_records.tuning(), chapter05_records.gains("graphs"),
        chapter05_records.side_by_side({"小": "preemption"}, ["preemptions"]),
    ]  # fmt: skip
    assert all("./lab record chapter05 --only" in text.data for text in texts)


def test_a_goodput_that_is_only_a_lower_bound_judges_no_tuning() -> None:
    known = store.find("chapter07/pd", "goodput_chat", "h200")
    found = chapter05_records.headline(known)
    assert found and found.name == "capacity_req_per_s"
    held = [
        run.model_copy(update={"goodput": goodput})
        for run in known.runs
        if run.goodput and (goodput := run.goodput.model_copy(update={"share": 1.0}))
    ]
    assert chapter05_records.headline(known.model_copy(update={"runs": held})) is None


def test_a_requests_blocks_and_steps() -> None:
    assert [blocks_of(16, 1, 16), blocks_of(16, 2, 16), blocks_of(300, 60, 128)] == [1, 2, 3]
    assert [steps_of(300, 60, 2048), steps_of(3000, 1, 2048)] == [60, 2]


def test_chunks_of_a_prefill_take_no_less_together_than_the_whole() -> None:
    ceilings = measured_ceilings(store.find("chapter03", "ceilings", "h200"))
    whole, halves, many = (
        chunk_floors_ms(known_shape("qwen3-8b"), ceilings, 8000, size) for size in (8192, 4096, 512)
    )
    assert (len(whole), len(halves), len(many)) == (1, 2, 16)
    assert sum(many) >= 0.999 * sum(halves) >= 0.998 * whole[0]
    assert max(many) < max(halves) < whole[0]


def test_mixed_lengths_are_the_same_each_time_and_fit() -> None:
    lengths = chapter05_lab.mixed_lengths(100, 1024)
    assert lengths == chapter05_lab.mixed_lengths(100, 1024)
    assert all(prompt + output <= 1024 for prompt, output in lengths)
    assert max(p for p, _ in lengths) > 5 * min(p for p, _ in lengths)


def test_no_engine_beside_a_gpus(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(live, "python_of", lambda name: Path("/nowhere/python"))
    with chapter05_lab.engines("knob-seqs") as started:
        assert started == {}
    with chapter05_lab.engine("knob-seqs") as url:
        assert url is None
    assert "只看 H200 记录" in capsys.readouterr().out


def test_an_interrupted_start_leaves_no_engine_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[TemporaryEngine] = []
    both = threading.Barrier(3)

    def slow(recipe: Recipe) -> TemporaryEngine:
        both.wait(timeout=30)
        process = start_in_own_session(
            ["sleep", "60"], log=tmp_path / recipe.name, environment={**os.environ}, folder=tmp_path
        )
        time.sleep(0.5)
        started.append(TemporaryEngine(recipe, "", ProcessId.of(process.pid), 0.5))
        return started[-1]

    monkeypatch.setattr(chapter05_lab, "start", slow)
    monkeypatch.setattr(live, "python_of", lambda name: Path(sys.executable))
    monkeypatch.setattr(live, "describe_host", lambda: HostInfo.model_construct(gpus=[]))

    def interrupt() -> None:
        both.wait(timeout=30)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), chapter05_lab.engines("one", "two"):
        pass
    assert len(started) == 2
    assert not any(engine.alive for engine in started)
