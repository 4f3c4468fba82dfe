"""Result files of other clients. `vllm.json` was written by `vllm bench serve` 0.32.0 against the
null server; `guidellm.json` and `aiperf.json` follow the tools' published schemas."""

from pathlib import Path

import pytest

from inferlab.errors import UsageError
from inferlab.records import store
from inferlab.records.importers import import_result

RESULTS = Path(__file__).parent / "results"


def test_vllm_bench_serve():
    record = import_result(RESULTS / "vllm.json", "NVIDIA H200")
    assert (record.kind, record.device, record.host) == ("import", "NVIDIA H200", None)
    assert record.one("ttft_ms.p50").mean == pytest.approx(22.306, abs=0.001)
    assert record.one("output_tokens_per_s").mean == pytest.approx(281.898, abs=0.001)
    assert record.one("ttft_ms.p50").labels["concurrency"] == 4


def test_vllm_tells_latency_from_the_sending_and_from_the_schedule_apart():
    record = import_result(RESULTS / "vllm.json")
    sent = record.one("e2e_ms.p50", latency_from="send").mean
    assert record.one("e2e_ms.p50", latency_from="schedule").mean > sent


def test_vllm_itl_is_one_value_a_chunk_so_it_is_our_chunk_gap():
    record = import_result(RESULTS / "vllm.json")
    assert record.select("chunk_gap_ms.p99")
    assert not record.select("itl_ms.p99")


def test_guidellm():
    record = import_result(RESULTS / "guidellm.json")
    assert record.model and record.model.name == "lab"
    assert record.one("e2e_ms.mean").mean == pytest.approx(1460)
    assert record.one("tpot_ms.mean", strategy="poisson", rate_per_s=8.0).mean == 19.04
    assert record.one("guidellm_time_per_output_token_ms.mean").mean == 21.91
    assert record.parameters["request_totals"][0]["errored"] == 1


def test_aiperf():
    record = import_result(RESULTS / "aiperf.json")
    assert record.model and record.model.name == "lab"
    assert record.one("ttft_ms.p99").mean == pytest.approx(201.2 * 1.2)
    assert record.one("requests_per_s").unit == "req/s"
    assert record.parameters["failures"] == {"failed": 2}


@pytest.mark.parametrize("name", ["vllm", "guidellm", "aiperf"])
def test_an_imported_record_is_read_back(name: str, tmp_path: Path):
    record = import_result(RESULTS / f"{name}.json")
    assert store.load(store.save(record, tmp_path)) == record


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "不是 JSON 对象"),
        ("[1, 2]", "不是 JSON 对象"),
        ('{"a": 1}', "认不出"),
        ('{"model_id": "m", "request_throughput": "fast"}', "像是 vllm 的结果"),
        ('{"metadata": {}, "benchmarks": [{}]}', "像是 guidellm 的结果"),
    ],
)
def test_a_file_that_is_no_result_is_one_line(text: str, message: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        import_result(path)
