"""`lab.yaml`'s experiments: what is read, what is refused, and in which order they run."""

from pathlib import Path
from typing import Any

import pytest
from lab_folders import BENCH, lab_folder

from inferlab.errors import UsageError
from inferlab.load.workloads import Lengths
from inferlab.measure.goodput import Slo
from inferlab.records.ab import Sides, in_turn
from inferlab.records.campaign import groups
from inferlab.records.experiments import experiments, merged, read_plan
from inferlab.records.load_plan import parse_load
from inferlab.records.plan import Level
from inferlab.records.recording import chosen
from inferlab.repository import labs


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("lab", labs())
def test_every_lab_of_this_repository_is_read(lab: str, device: str):
    plan = read_plan(lab, device)
    assert plan.experiments
    assert [each.minutes for each in plan.experiments] == sorted(
        each.minutes for each in plan.experiments
    )


def test_a_devices_overlay_is_merged_over_the_entry(tmp_path: Path):
    entry = BENCH | {"cpu": {"load": {"prompt": 4}, "minutes": 0.5}, "cuda": {"repeats": 3}}
    folder = lab_folder(tmp_path, entry)
    [on_cpu] = read_plan("small", "cpu", folder).experiments
    [on_gpu] = read_plan("small", "cuda", folder).experiments
    assert on_cpu.load == BENCH["load"] | {"prompt": 4}
    assert (on_cpu.minutes, on_cpu.repeats) == (0.5, None)
    assert (on_gpu.load, on_gpu.minutes, on_gpu.repeats) == (BENCH["load"], 1, 3)


def test_answers_are_compared_on_gpus_only_where_kernels_do_not_depend_on_the_batch():
    for device, count, expected in (("cuda", 4, {"VLLM_BATCH_INVARIANT": "1"}), ("cpu", 4, None)):
        plan = read_plan("chapter07/pd", device)
        compared = [each for each in plan.experiments if each.measure == "pd_faults"]
        assert len(compared) == count
        for each in compared:
            assert plan.variables_of(each).get(each.engines[0]) == expected


@pytest.mark.parametrize(("gb", "expected"), [(141, 36), (80, 18), (24, 18)])
def test_kv_caches_fit_two_engines_on_one_gpu(gb: int, expected: int):
    flags = read_plan("chapter07/pd", "cuda", memory_bytes=gb * 1e9).recorded_flags
    assert flags == {"gpu-memory-utilization": 0.45, "kv-cache-memory-bytes": expected << 30}


def test_flags_by_memory_without_a_threshold_are_refused(tmp_path: Path):
    folder = lab_folder(tmp_path, BENCH, recorded_flags={"cuda": [{"block-size": 16}]})
    with pytest.raises(UsageError, match=r"recorded_flags\.cuda 有一条没有写 least_memory_gb"):
        read_plan("small", "cuda", folder)


def test_merging_goes_key_by_key_and_replaces_lists():
    below = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merged(below, {"a": {"y": [3]}}) == {"a": {"x": 1, "y": [3]}, "b": 1}
    assert below["a"]["y"] == [1, 2]  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measure": "nonsense"}, "没有名为 'nonsense' 的 measure"),
        ({"module": "inferlab.hardware.ceilings"}, "module 或 measure 之一"),
        ({"engines": ["absent"]}, "engine/absent-cpu.yaml"),
        ({"engines": ["small", "other"]}, "需要 1 个引擎，写了 2 个"),
        ({"measure": "ab"}, "需要 2 个引擎，写了 1 个"),
        ({"measure": "ab", "engines": ["small", "small"]}, "需要 2 个引擎"),
        ({"measure": "ab", "engines": ["small", "other"]}, "只测一种负载"),
        ({"measure": "cold_starts"}, "只测一种负载"),
        ({"measure": "goodput_ab", "engines": ["small", "other"]}, "需要 slo 和 rates"),
        ({"load": None}, "需要 load"),
        ({"measure": "decode_grid"}, "需要 with，而不是 load"),
        ({"load": {"prompts": 8}}, "prompts"),
        ({"load": {"prompt": "8-4", "concurrency": 1}}, "看不懂长度"),
        ({"load": {"prompt": 8}}, "rates 或 concurrency 之一"),
        ({"load": {"concurrency": [0]}}, "值为正"),
        ({"load": {"rates": [1], "slo": {"tpot": 5}}}, "slo 有不认识的键 tpot"),
        ({"minutes": "long"}, "没有写 minutes"),
        ({"devices": ["tpu"]}, "tpu"),
        ({"wtih": {}}, "不认识的键 wtih"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str):
    folder = lab_folder(tmp_path, BENCH | changes)
    with pytest.raises(UsageError) as refused:
        read_plan("small", "cpu", folder)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.remedy


def test_ids_are_unique_and_a_lab_names_its_model(tmp_path: Path):
    with pytest.raises(UsageError, match="重复：bench"):
        read_plan("small", "cpu", lab_folder(tmp_path, BENCH, BENCH))
    with pytest.raises(UsageError, match="recorded_model"):
        read_plan("small", "cpu", lab_folder(tmp_path, BENCH, recorded_model={}))


def test_only_takes_a_list_of_ids(tmp_path: Path):
    entries = [BENCH | {"id": name, "minutes": n} for n, name in enumerate("cba", 1)]
    plan = read_plan("small", "cpu", lab_folder(tmp_path, *entries))
    assert [each.id for each in chosen(plan, "")] == ["c", "b", "a"]
    assert [each.id for each in chosen(plan, "a, c")] == ["c", "a"]
    with pytest.raises(UsageError, match="'d'"):
        chosen(plan, "a,d")


def test_experiments_that_share_engines_follow_each_other(tmp_path: Path):
    entries = [
        BENCH | {"id": "slow", "minutes": 9},
        BENCH | {"id": "other", "minutes": 5, "engines": ["other"]},
        BENCH | {"id": "quick", "minutes": 1},
        {"id": "module", "module": "inferlab.hardware.ceilings", "minutes": 2},
    ]
    plan = read_plan("small", "cpu", lab_folder(tmp_path, *entries))
    assert [[each.id for each in group] for group in groups(plan.experiments)] == [
        ["quick", "slow"],
        ["module"],
        ["other"],
    ]


def test_a_load_is_a_plan():
    given = {"prompt": "8-16", "output": 4, "rates": [2, 4], "duration_s": 5}
    given |= {"slo": {"ttft_ms": 1000}}
    load = parse_load("x", given)
    assert load.plan.workload.prompt == Lengths(8, 16)
    assert (load.plan.duration_s, load.plan.requests) == (5, 0)
    assert load.levels == (Level(rate_per_s=2), Level(rate_per_s=4))
    assert load.slo == Slo(ttft_ms=1000)
    by_number = parse_load("x", {"concurrency": 3, "requests": 9})
    assert (by_number.plan.requests, by_number.plan.duration_s) == (9, 0)


def test_sides_take_turns_or_go_in_blocks():
    assert "".join(side for _, side in in_turn(3, Sides())) == "ABBAAB"
    now = ["B"]
    blocks = Sides(interleaved=lambda: False, current=lambda: now[0])
    seen = []
    for number, side in in_turn(2, blocks):
        now[0] = side
        seen.append((number, side))
    assert seen == [(0, "B"), (1, "B"), (0, "A"), (1, "A")]


def test_turns_that_stop_midway_end_in_blocks():
    costly, now, seen = [False], ["A"], ""
    for _, side in in_turn(3, Sides(interleaved=lambda: not costly[0], current=lambda: now[0])):
        now[0] = side
        seen += side
        costly[0] = len(seen) >= 2
    assert seen == "ABBBAA"


def test_the_old_form_stays_as_it_was():
    found = {each.id: each for each in experiments("chapter03", "cuda")}
    assert found["layer"].module == "inferlab.measure.layer"
    assert found["layer"].engines == ()
