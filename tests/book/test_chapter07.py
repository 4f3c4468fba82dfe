"""Chapter 7's predictions, and its records as the notebook shows them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from IPython.display import Markdown

from inferlab.arithmetic.separation import handover_bytes, handover_pieces
from inferlab.book import chapter07_handover, chapter07_lab, chapter07_records, live
from inferlab.book.chapter03 import known_shape
from inferlab.book.chapter07 import h200_ceilings, predicted_gain
from inferlab.book.shown_records import ShownRecords
from inferlab.engines.environments import python_of
from inferlab.engines.router.client import all_in_rotation, paths, workers
from inferlab.errors import LabError
from inferlab.hardware.timing import Series
from inferlab.records import store
from inferlab.records.runs import GoodputFigures, Run
from inferlab.records.schema import Comparison, Figure, Record


@contextmanager
def router(state: object, status: int = 200) -> Iterator[str]:
    """A server whose every answer is `state`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(state).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_whole_blocks_are_moved_and_each_layers_is_a_piece() -> None:
    shape = known_shape("qwen3-8b")
    assert handover_bytes(shape, 128, 128) == handover_bytes(shape, 1, 128) == 128 * 147_456
    assert handover_pieces(shape, 129, 128) == 2 * 36


def test_separation_gains_where_both_sides_are_busy_and_loses_elsewhere() -> None:
    shape, ceilings = known_shape("qwen3-8b"), h200_ceilings()
    assert predicted_gain(shape, ceilings, 512, 256, 0.015) > 1.1
    assert predicted_gain(shape, ceilings, 8192, 128, 0.025) < 0.9
    assert predicted_gain(shape, ceilings, 8192, 128, 0.025, gpus=4) > 1
    assert predicted_gain(shape, ceilings, 512, 256, 0.001) == 0


def test_workers_are_told_by_the_router() -> None:
    state = {"prefill": [{"url": "http://p"}], "decode": [{"url": "http://d"}]}
    with router(state) as url:
        assert workers(url) == {"prefill": ["http://p"], "decode": ["http://d"]}
    with router([{"id": "a"}, {"id": "b"}]) as url:
        assert paths(url, 1) == [{"id": "b"}]


def test_all_workers_are_in_rotation_or_not() -> None:
    def state(*healthy: bool) -> dict[str, object]:
        return {"status": "ok", "serve": [{"url": "http://s", "healthy": each} for each in healthy]}

    for healthy, whole in (((True, True), True), ((True, False), False)):
        with router(state(*healthy)) as url:
            assert all_in_rotation(url) is whole
    with router(state(True), status=503) as url:
        assert not all_in_rotation(url)


def test_what_is_no_pd_deployment_is_said_in_a_line() -> None:
    with router({"colocated": []}) as url, pytest.raises(LabError, match="没有 prefill 和 decode"):
        workers(url)
    with router({}, status=503) as url, pytest.raises(LabError, match="凑不齐一对"):
        workers(url)
    with router({}, status=404) as url, pytest.raises(LabError, match="不是 PD 的路由"):
        workers(url)
    with pytest.raises(LabError, match=r"\./lab up chapter07/pd"):
        workers("http://127.0.0.1:9")


def test_where_no_further_engine_can_run_the_rival_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path, capsys
) -> None:
    monkeypatch.setattr(live, "python_of", lambda name: tmp_path / python_of(name).name)
    with chapter07_lab.replicas() as url:
        assert url is None
    assert "只看 H200 记录" in capsys.readouterr().out


def test_the_h200_records_are_shown() -> None:
    found = chapter07_records.shown("handover", chapter07_handover.against_the_link)
    assert isinstance(found, Markdown) and "+0.0%" in found.data
    drawing = chapter07_records.shown("handover", chapter07_handover.handover)
    assert not isinstance(drawing, Markdown) and len(drawing.axes) == 2
    assert not isinstance(chapter07_records.interference(), Markdown)
    assert not isinstance(chapter07_records.interference_on_one_gpu(), Markdown)
    assert 3e11 < (chapter07_handover.link_bytes_per_s() or 0) < 4.5e11
    checked = chapter07_records.shown("transfer_check", chapter07_handover.moved_by)
    assert isinstance(checked, Markdown) and "cuda_ipc/cuda" in checked.data


def test_layers_side_by_side_are_fewer_pieces() -> None:
    table = chapter07_handover.orders([8192, 30000]).data
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    pieces = {(row[0], row[1]): int(row[2].replace(",", "")) for row in rows}
    assert len(pieces) == 2 * len(chapter07_handover.ORDERS)
    beside, apart = list(chapter07_handover.ORDERS.values())[:2]
    assert all(
        10 * pieces[beside, prompt] < pieces[apart, prompt] for prompt in ("8,192", "30,000")
    )


def test_without_records_the_orders_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: None)
    assert "handover_layers" in chapter07_handover.orders([8192]).data


def test_what_the_router_adds_is_told_for_one_hop_and_for_two() -> None:
    rows = chapter07_records.router_added().data.splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    engine, null = cells[:2], cells[2:]
    assert [row[:3] for row in engine] == [["vLLM，H200", "一次一个", "一个副本"],
                                           ["vLLM，H200", "16 路", "一个副本"]]  # fmt: skip
    assert [row[2] for row in null] == ["一个副本", "P 和 D"] * 7
    assert [row[0] for row in null] == ["空服务器，16 核"] * 6 + ["空服务器，2 核"] * 8
    for device, row in (("h200", null[1]), ("intel-xeon", null[7])):
        record = store.find("chapter07/pd", "router_null", device)
        two_hops = record.one("ttft_added_ms", load="one at a time", path="pd")
        assert row[3].startswith(f"{two_hops.mean:.1f}（")
        assert two_hops.mean > record.one("ttft_added_ms", load="one at a time", path="router").mean


def test_what_the_router_adds_before_an_engine_is_paired_by_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pattern = store.find("chapter03", "gpu_load", "h200")
    figures = [Figure.from_series(Series(name, "", values, {"side": side, "concurrency": 16}))
               for name, side, values in (("ttft_ms.p50", "A", [20.0, 40.0]),
                                          ("ttft_ms.p50", "B", [23.0, 43.0]),
                                          ("output_tokens_per_s", "A", [100.0, 200.0]),
                                          ("output_tokens_per_s", "B", [99.0, 198.0]))]  # fmt: skip
    known = {"router_overhead": pattern.model_copy(update={"figures": figures}),
             "router_null": store.find("chapter07/pd", "router_null", "h200")}  # fmt: skip
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: known.get(experiment))
    row = chapter07_records.router_added().data.splitlines()[2]
    assert row == ("| vLLM，H200 | 16 路 | 一个副本 | 3.0（3.0 到 3.0） | "
                   "0.990（0.990–0.990） | — |")  # fmt: skip


def fault_record(**faults: dict[str, list[float]]) -> Record:
    pattern = store.find("chapter03", "gpu_load", "h200")
    figures = [Figure.from_series(Series(name, "", values, {"fault": fault}))
               for fault, counts in faults.items() for name, values in counts.items()]  # fmt: skip
    return pattern.model_copy(update={"figures": figures})


def test_faults_are_added_up_over_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {name: [0.0] for name in ("broken_off", "lost", "silent")}
    control = none | {"answered": [24], "wrong": [1], "slowest_s": [2.5]}
    frozen = {"answered": [23, 24], "broken_off": [1, 0], "lost": [0, 0], "silent": [0, 0],
              "wrong": [0, 0], "slowest_s": [31.5, 8.0], "expired": [2, 1]}  # fmt: skip
    record = fault_record(none=control, decode_frozen=frozen)
    known = dict.fromkeys(("faults", "faults_kv_expired", "faults_one_gpu"), record)
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: known.get(experiment))

    def rows(experiment: str, label: str) -> list[str]:
        return [f"| {experiment} | 没有故障（对照） | 1 | 24 | 0 | 0 | 0 | 1 | —、— | 2.5 |",
                f"| {experiment} | {label} | 2 | 47 | 1 | 0 | 0 | 0 | 3、— | 31.5 |"]  # fmt: skip

    on_a_cpu, on_a_gpu = chapter07_records.faults(), chapter07_records.faults_on_a_gpu()
    assert on_a_cpu.data.splitlines()[2:] == [
        *rows("faults", "D 卡住"), *rows("faults_kv_expired", "D 卡住，比租约久")
    ]  # fmt: skip
    assert on_a_gpu.data.splitlines()[2:] == [
        *rows("faults", "D 卡住"), *rows("faults_one_gpu", "D 卡住")
    ]  # fmt: skip


def held_run() -> Run:
    """A run at a rate that held."""
    run = store.find("chapter07/pd", "goodput_long_prompt", "h200").runs[0]
    assert run.goodput
    return run.model_copy(update={
        "goodput": run.goodput.model_copy(update={"share": 1.0}),
        "steady": run.steady.model_copy(update={"verdict": "steady"}),
    })  # fmt: skip


BROKEN = {"goodput": GoodputFigures(requests_per_s=1, output_tokens_per_s=1, share=0.5)}


def ladders(last_a: dict[str, Any], last_b: dict[str, Any]) -> Record:
    """Two rungs and two rounds of either side; what the runs of the upper rung were like."""
    pattern = store.find("chapter07/pd", "goodput_long_prompt", "h200")
    lower, runs = held_run(), []
    for side, last in (("A", last_a), ("B", last_b)):
        for number in range(2):
            for rate, changes in ((3.0, {}), (5.0, last)):
                labels = {"side": side, "rate_per_s": rate}
                runs.append(
                    lower.model_copy(update={"labels": labels, "repeat": number, **changes})
                )
    found = Comparison(name="capacity_req_per_s", ratio=0.94, low=0.9, high=1.02,
                       confidence=0.95, verdict="no difference")  # fmt: skip
    return pattern.model_copy(update={"runs": runs, "comparisons": [found]})


def test_a_ladder_that_was_too_low_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Record] = {}
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: known.get(experiment))
    qwen = known_shape("qwen3-8b"), h200_ceilings()
    assert "goodput_long_answer" in chapter07_records.goodput(*qwen).data
    known["goodput_long_prompt"] = ladders(BROKEN, BROKEN)
    [row] = chapter07_records.goodput(*qwen).data.splitlines()[2:]
    assert row.startswith("| 长 prompt：8,192 进 128 出 |")
    assert row.endswith("| 0.763 | 0.94 | 0.90–1.02 | 看不出差别 |")
    assert chapter07_records.measured_gains(0.025) == {(8192, 128): 0.94}
    assert chapter07_records.measured_gains(0.015) == {}, "a load with another SLO"
    for a, b in ((BROKEN, {}), ({}, BROKEN)):
        known["goodput_long_prompt"] = ladders(a, b)
        assert "未定" in chapter07_records.goodput(*qwen).data
        assert chapter07_records.measured_gains(0.025) == {}


@pytest.mark.parametrize(
    ("verdict", "a", "b", "told"),
    [
        ("A faster", {}, BROKEN, "不详–1.02 | A 更好"),
        ("A faster", BROKEN, {}, "0.90–不详 | 未定：有一轮没有爬到头"),
        ("B faster", BROKEN, {}, "0.90–不详 | B 更好"),
        ("B faster", {}, BROKEN, "不详–1.02 | 未定：有一轮没有爬到头"),
    ],
)
def test_a_bound_tells_what_its_known_end_tells(
    monkeypatch: pytest.MonkeyPatch, verdict: str, a, b, told: str
) -> None:
    record = ladders(a, b)
    said = record.comparisons[0].model_copy(update={"verdict": verdict})
    known = {"goodput_long_prompt": record.model_copy(update={"comparisons": [said]})}
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: known.get(experiment))
    shown = chapter07_records.goodput(known_shape("qwen3-8b"), h200_ceilings())
    [row] = shown.data.splitlines()[2:]
    assert row.endswith(f"| {told} |")


def test_nixl_alone_stands_beside_the_engines_handover(monkeypatch: pytest.MonkeyPatch) -> None:
    data = store.find("chapter07/pd", "nixl_read", "h200")
    rows = chapter07_handover.nixl_against_the_link(data).data.splitlines()[2:]
    shares = [[float(cell.strip(" %")) for cell in row.split("|")[3:-1]] for row in rows]
    assert [row.split("|")[1].strip() for row in rows] == [
        "1,024", "4,096", "8,192", "16,384", "30,000",
    ]  # fmt: skip
    for idle, work, pieces, fresh, used in shares:
        assert pieces < work and fresh <= work and used <= work, "the engine adds to NIXL's time"
        assert abs(idle - work) < 5
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: None)
    assert "--only link,handover" in chapter07_handover.nixl_against_the_link(data).data


def test_splits_of_four_gpus_are_held_against_the_prediction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def record(ratio: float) -> Record:
        found = Comparison(name="capacity_req_per_s", ratio=ratio, low=ratio, high=ratio,
                           confidence=0.95, verdict="no difference")  # fmt: skip
        return ladders(BROKEN, BROKEN).model_copy(update={"comparisons": [found]})

    known = {"split_1_3_chat": record(0.7), "split_2_2_chat": record(1.2)}
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: known.get(experiment))
    shape, ceilings = known_shape("qwen3-8b"), h200_ceilings()
    [row] = chapter07_records.splits_of_four(shape, ceilings).data.splitlines()[2:]
    assert row == "| 对话 512/256 | 0.7 | 1.2 | — | 2P2D | 2P2D |"
    known.clear()
    assert "split_3_1_long_prompt" in chapter07_records.splits_of_four(shape, ceilings).data


def test_without_records_the_command_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShownRecords, "find", lambda self, experiment: None)
    texts = [chapter07_records.faults(), chapter07_records.faults_on_a_gpu(),
             chapter07_records.interference(), chapter07_records.interference_on_one_gpu(),
             chapter07_records.router_added(),
             chapter07_records.gains(*chapter07_records.GOODPUT)]  # fmt: skip
    assert all("./lab record chapter07/pd --only" in text.data for text in texts)
    assert chapter07_records.measured_gains(0.025) == {}
