"""Whether KV moved is told from counters, and a router's 200 is not taken for it."""

import pytest

from inferlab.measure.kv_transfer import Transfers

LABELS = 'engine="0",model_name="lab"'
METRICS = f"""
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_bucket{{{LABELS},le="+Inf"}} 24.0
vllm:nixl_xfer_time_seconds_count{{{LABELS}}} 24.0
vllm:nixl_xfer_time_seconds_sum{{{LABELS}}} 0.109
# TYPE vllm:nixl_post_time_seconds histogram
vllm:nixl_post_time_seconds_bucket{{{LABELS},le="+Inf"}} 24.0
vllm:nixl_post_time_seconds_count{{{LABELS}}} 24.0
vllm:nixl_post_time_seconds_sum{{{LABELS}}} 0.092
# TYPE vllm:nixl_num_descriptors histogram
vllm:nixl_num_descriptors_bucket{{{LABELS},le="+Inf"}} 24.0
vllm:nixl_num_descriptors_count{{{LABELS}}} 24.0
vllm:nixl_num_descriptors_sum{{{LABELS}}} 192.0
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_bucket{{{LABELS},le="+Inf"}} 24.0
vllm:nixl_bytes_transferred_count{{{LABELS}}} 24.0
vllm:nixl_bytes_transferred_sum{{{LABELS}}} 6.3963136e+07
# TYPE vllm:nixl_num_failed_transfers counter
vllm:nixl_num_failed_transfers_total{{{LABELS}}} 0.0
# TYPE vllm:prompt_tokens_by_source counter
vllm:prompt_tokens_by_source_total{{{LABELS},source="local_compute"}} 4.0
vllm:prompt_tokens_by_source_total{{{LABELS},source="external_kv_transfer"}} 14161.0
"""


def test_counters_are_read_by_name_and_source() -> None:
    found = Transfers.parse(METRICS)
    assert found == Transfers(
        reads=24,
        seconds=0.109,
        post_seconds=0.092,
        bytes=63_963_136,
        descriptors=192,
        computed_tokens=4,
        moved_tokens=14_161,
    )
    assert found.bytes_per_s == pytest.approx(5.87e8, rel=1e-3)
    assert Transfers.parse("") == Transfers()
    assert Transfers().bytes_per_s == 0


def test_what_an_engine_counted_before_is_not_counted_again() -> None:
    before = Transfers(reads=24, seconds=0.5, bytes=100, computed_tokens=7)
    after = Transfers(reads=26, seconds=0.7, bytes=150, computed_tokens=7, moved_tokens=61)
    assert after.since(before) == Transfers(
        reads=2, seconds=pytest.approx(0.2), bytes=50, moved_tokens=61
    )


@pytest.mark.parametrize(("counted", "says"), [
    (Transfers(reads=5, moved_tokens=500), ""),
    (Transfers(computed_tokens=500), "没有传过 KV"),
    (Transfers(reads=4, moved_tokens=400), "只传了 4 次"),
    (Transfers(reads=5, failed=1), "失败 1 次"),
    (Transfers(reads=5, moved_tokens=400, computed_tokens=100), "自己算了 100"),
    (Transfers(reads=5, moved_tokens=500, late=1), "晚于租期"),
])  # fmt: skip
def test_the_check_says_what_did_not_move(counted: Transfers, says: str) -> None:
    problem = counted.problem(5)
    assert says in problem
    assert bool(problem) == bool(says)


def test_what_others_asked_meanwhile_is_not_held_against_the_requests() -> None:
    health_check = {"reads": 6, "computed_tokens": 1}
    assert Transfers(moved_tokens=500, **health_check).problem(5, 500) == ""
    assert "自己算了 100" in Transfers(moved_tokens=400, **health_check).problem(5, 500)
