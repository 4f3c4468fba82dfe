"""Verdicts on records made by hand, on the committed ones, and what a reader sees when one is
missing or a claim is written wrongly."""

import json
import os
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from pydantic import ValidationError

from inferlab.book.claims import Claim, judge, judge_labs, load_claims
from inferlab.book.quantities import Records
from inferlab.errors import LabError, UsageError
from inferlab.hardware.timing import Series
from inferlab.records import store
from inferlab.records.experiments import read_plan
from inferlab.records.goodput_ab import CAPACITY, with_capacities
from inferlab.records.schema import Figure, Record
from inferlab.repository import labs, root


def claim(**changes) -> Claim:
    fields = {
        "id": "busy",
        "says": "SM 很忙",
        "by": "lab",
        "section": "测试",
        "condition": "decode",
        "where": {"experiment": "load", "name": "sm_active", "phase": "decode"},
        "confirm": [{"quantity": "figure", "at_least": 0.5}],
        "refute": [{"quantity": "figure", "at_most": 0.4}],
    }
    return Claim.model_validate(fields | changes)


@pytest.fixture
def recorded(tmp_path: Path):
    """Writes a record with the given repeats of `sm_active`; its host is the H200's."""
    pattern = store.find("chapter03", "gpu_load", "h200")

    def write(*values: float) -> Records:
        series = Series(name="sm_active", unit="1", labels={"phase": "decode"}, values=[*values])
        record = pattern.model_copy(
            update={"experiment": "load", "figures": [Figure.from_series(series)]}
        )
        return Records(store.save(record, tmp_path).parents[1], "chapter03")

    return write


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.80, 0.82, 0.81), "证实"),
        ((0.10, 0.12, 0.11), "推翻"),
        ((0.45, 0.44, 0.46), "无法比较"),
        ((0.30, 0.90, 0.60), "无法比较"),
        ((0.90,), "无法比较"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(recorded, values, verdict: str) -> None:
    finding = judge(claim(), recorded(*values))
    assert finding.verdict == verdict
    assert finding.sources[0].device == "NVIDIA H200"


def test_an_interval_across_the_threshold_is_named_as_the_reason(recorded) -> None:
    finding = judge(claim(), recorded(0.30, 0.90, 0.60))
    assert finding.reason.startswith("95 % 区间跨过阈值：sm_active（decode） 与 0.5")


def test_between_both_thresholds_neither_is_claimed(recorded) -> None:
    assert "既不满足证实" in judge(claim(), recorded(0.45, 0.44, 0.46)).reason


def test_a_missing_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    finding = judge(claim(), Records(tmp_path / "h200", "chapter07/pd"))
    assert (finding.verdict, finding.device) == ("无法比较", "h200")
    assert finding.reason == "没有 load 的记录 → ./lab record chapter07/pd --only load"


def test_a_claim_about_cpus_is_not_judged_on_a_gpu(recorded) -> None:
    finding = judge(claim(device="cpu"), recorded(0.9, 0.9, 0.9))
    assert (finding.verdict, "CPU 上检验" in finding.reason) == ("无法比较", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"confirm": [{"quantity": "speed", "at_least": 1}]},
        {"confirm": [{"quantity": "figure"}]},
        {"confirm": [{"quantity": "figure", "at_least": 1, "at_most": 2}]},
        {"refute": []},
        {"eval": "__import__('os')"},
    ],
)
def test_a_claim_written_wrongly_is_refused(changes) -> None:
    with pytest.raises(ValidationError):
        claim(**changes)


def test_chapter_2_on_the_h200() -> None:
    verdicts = {each.claim.id: each.verdict for each in judge_labs(["chapter03"])
                if each.device == "NVIDIA H200"}  # fmt: skip
    assert verdicts == {
        "prefill-8192": "证实",
        "prefill-64": "推翻",
        "prefill-attention-2048": "无法比较",
        "decode-1": "证实",
        "decode-64": "证实",
        "decode-mlp-512": "推翻",
        "decode-attention-512": "证实",
        "decode-attention-1": "推翻",
        "gpu-util-one-thread": "证实",
    }


def test_every_verdict_stands_on_committed_records() -> None:
    for finding in judge_labs(["chapter03"], root() / "results"):
        assert finding.sources, finding.claim.id
        for source in finding.sources:
            assert isinstance(store.load(root() / source.path), Record)
        assert all(found.low <= found.mean <= found.high for found in finding.measured.values())


def test_a_device_without_the_records_of_a_claim_is_not_named(tmp_path: Path) -> None:
    judged = judge_labs(["chapter07/pd"])
    assert {each.device for each in judged} == {"NVIDIA H200"}
    assert len(judged) == len(load_claims("chapter07/pd"))
    empty = judge_labs(["chapter07/pd"], tmp_path)
    assert [each.claim.id for each in empty] == [each.claim.id for each in judged]
    assert all("没有" in each.reason and not each.sources for each in empty)


@pytest.mark.parametrize("lab", labs())
def test_ids_are_unique(lab: str) -> None:
    ids = [each.id for each in load_claims(lab)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("lab", labs())
def test_without_records_nothing_is_confirmed_or_refuted(lab: str, tmp_path: Path) -> None:
    findings = [judge(each, Records(tmp_path, lab)) for each in load_claims(lab)]
    assert findings
    assert {each.verdict for each in findings} == {"无法比较"}


def test_every_record_that_chapter_5_is_judged_on_is_an_experiment_of_its_lab() -> None:
    planned = {each.id for each in read_plan("chapter05", "cuda").experiments}
    for each in load_claims("chapter05"):
        wheres = [each.where, each.where.get("over", {}), each.where.get("under", {})]
        named = {where["experiment"] for where in wheres if "experiment" in where}
        assert named <= planned, each.id


def ratio_claim(**where) -> Claim:
    bounds = {"confirm": [{"quantity": "ratio", "at_least": 1.2}],
              "refute": [{"quantity": "ratio", "at_most": 1.05}]}  # fmt: skip
    return claim(where={"experiment": "load", "name": "rate", **where}, **bounds)


@pytest.mark.parametrize(
    ("static", "continuous", "verdict"),
    [
        ((10.0, 20.0, 15.0), (15.1, 30.0, 22.4), "证实"),
        ((10.0, 20.0, 15.0), (10.1, 20.1, 15.1), "推翻"),
        ((10.0, 20.0, 15.0), (9.0, 40.0, 15.0), "无法比较"),
    ],
)
def test_a_ratio_within_a_record_is_taken_repeat_by_repeat(
    tmp_path: Path, static, continuous, verdict: str
) -> None:
    pattern = store.find("chapter03", "gpu_load", "h200")
    runs = {"static": static, "continuous": continuous}
    figures = [Figure.from_series(Series("rate", "tok/s", [*values], {"mode": mode}))
               for mode, values in runs.items()]  # fmt: skip
    record = pattern.model_copy(update={"experiment": "load", "figures": figures})
    finding = judge(
        ratio_claim(over={"mode": "continuous"}, under={"mode": "static"}),
        Records(store.save(record, tmp_path).parents[1], "chapter03"),
    )
    assert finding.verdict == verdict
    assert list(finding.measured) == ["rate（continuous ÷ static）"]


BOTH, TOP_HELD, LOWEST_FAILED = (0.95, 0.3), (0.97, 0.95), (0.8, 0.3)


@pytest.mark.parametrize(
    ("shares_a", "shares_b", "ends", "verdict"),
    [
        (BOTH, BOTH, (1.0, 1.0), "推翻"),
        (BOTH, TOP_HELD, (5 / 4.1, inf), "证实"),
        (BOTH, LOWEST_FAILED, (0.0, 4 / 4.1), "推翻"),
        (TOP_HELD, BOTH, (0.0, 4.1 / 5), "推翻"),
        (LOWEST_FAILED, BOTH, (4.1 / 4, inf), "无法比较"),
        (TOP_HELD, TOP_HELD, (0.0, inf), "无法比较"),
    ],
)
def test_a_bound_of_goodput_is_judged_on_the_side_that_is_known(
    tmp_path: Path, shares_a, shares_b, ends: tuple[float, float], verdict: str
) -> None:
    pattern = store.find("chapter07/pd", "goodput_long_prompt", "h200")
    whole = next(run for run in pattern.runs if run.goodput)
    runs = [
        whole.model_copy(update={
            "labels": {"side": side, "rate_per_s": rate}, "repeat": number,
            "goodput": whole.goodput.model_copy(update={"share": share}),
        })
        for side, shares in (("A", shares_a), ("B", shares_b))
        for number in range(2)
        for rate, share in zip((4.0, 5.0), shares, strict=True)
    ]  # fmt: skip
    changes = {"experiment": "load", "runs": runs}
    path = store.save(with_capacities(pattern.model_copy(update=changes)), tmp_path)
    finding = judge(
        ratio_claim(name=CAPACITY, over={"side": "B"}, under={"side": "A"}),
        Records(path.parents[2], "chapter07/pd"),
    )
    assert finding.verdict == verdict, finding.reason
    [ratio] = finding.measured.values()
    assert (ratio.low, ratio.high) == pytest.approx(ends, abs=0.02)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((10.0, 10.1, 9.9), (15.0, 15.2, 15.1), "证实"),
        ((15.0, 15.2, 15.1), (10.0, 10.1, 9.9), "证实"),
        ((10.0, 10.1, 9.9), (10.1, 10.0, 9.9), "推翻"),
        ((10.0, 14.0, 9.0), (9.0, 13.0, 12.0), "无法比较"),
        ((10.0,), (20.0,), "无法比较"),
        ((20.0,), (10.0,), "无法比较"),
    ],
)
def test_a_gap_does_not_care_which_is_larger(tmp_path: Path, a, b, verdict: str) -> None:
    pattern = store.find("chapter03", "gpu_load", "h200")
    figures = [Figure.from_series(Series("rate", "req/s", [*values], {"side": side}))
               for side, values in {"A": a, "B": b}.items()]  # fmt: skip
    record = pattern.model_copy(update={"experiment": "load", "figures": figures})
    where = {"experiment": "load", "name": "rate", "over": {"side": "B"}, "under": {"side": "A"}}
    asked = claim(where=where, confirm=[{"quantity": "gap", "at_least": 1.2}],
                  refute=[{"quantity": "gap", "at_most": 1.05}])  # fmt: skip
    finding = judge(asked, Records(store.save(record, tmp_path).parents[1], "chapter03"))
    assert finding.verdict == verdict
    [gap] = finding.measured.values()
    assert 1 <= gap.low <= gap.mean <= gap.high


def test_a_ratio_between_records_takes_their_spread_as_it_is(tmp_path: Path) -> None:
    pattern = store.find("chapter03", "gpu_load", "h200")
    for experiment, values in {"small": [10.0, 10.2, 9.9], "large": [30.0, 31.0, 30.5]}.items():
        figures = [Figure.from_series(Series("rate", "tok/s", values))]
        record = pattern.model_copy(update={"experiment": experiment, "figures": figures})
        folder = store.save(record, tmp_path).parents[1]
    found = judge(ratio_claim(over={"experiment": "large"}, under={"experiment": "small"}),
                  Records(folder, "chapter03"))  # fmt: skip
    assert found.verdict == "证实"
    assert len(found.sources) == 2


def test_a_damaged_file_gives_one_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "claims.yaml").write_text("claims: [{id: x}]")
    monkeypatch.setattr("inferlab.book.claims.lab_dir", lambda _: tmp_path)
    with pytest.raises(LabError, match="写错了（says：Field required）"):
        load_claims("chapter03")
    (tmp_path / "claims.yaml").write_text("claims: {")
    with pytest.raises(LabError, match="不是有效的"):
        load_claims("chapter03")


def test_an_unknown_lab_is_wrong_use() -> None:
    with pytest.raises(UsageError):
        judge_labs(["chapter99"])


def lab_claims(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from inferlab.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, "claims", *arguments], capture_output=True,
                          text=True, env={**os.environ, "COLUMNS": "200"})  # fmt: skip


def test_the_command_as_json() -> None:
    done = lab_claims("chapter03", "--json")
    first = json.loads(done.stdout)[0]
    assert first["verdict"] == "证实"
    assert first["records"][0]["path"] == "results/h200/chapter03/layer.json"
    share = first["measured"]["达到的算力 ÷ 实测算力上限"]
    assert share["low"] < share["mean"] < share["high"]


def test_the_command_shows_three_digits_also_where_they_are_zeros() -> None:
    lines = lab_claims("chapter05").stdout.splitlines()
    assert "  capacity_req_per_s（B ÷ A）：1.00（95 % 区间 0.996–1.00）" in lines


def test_wrong_use_of_the_command_ends_with_2() -> None:
    done = lab_claims("chapter99")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("错误: 没有名为 'chapter99' 的实验")
