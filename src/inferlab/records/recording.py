"""Run a lab's experiments and write one record each, quickest first, within a time limit."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from inferlab.engines.environments import python_with_torch
from inferlab.errors import LabError, UsageError
from inferlab.hardware.timing import Series
from inferlab.records import store
from inferlab.records.campaign import Campaign, Say
from inferlab.records.experiments import Experiment, LabPlan, experiments, read_plan
from inferlab.records.provenance import describe_host, describe_software, device_of
from inferlab.records.schema import Figure, Model, Record
from inferlab.records.time_limits import Limits
from inferlab.repository import root, state_dir

REPEATS = 5


def record_lab(
    lab: str,
    *,
    minutes: float = 30.0,
    only: str = "",
    repeats: int | None = None,
    folder: Path | None = None,
    command: str = "",
    model: str = "",
    again: bool = False,
    lab_folder: Path | None = None,
    say: Say = print,
) -> list[Path]:
    """Run the lab's experiments and write their records, each at once when it ends.

    Experiments that share engines follow each other on them. One whose whole record of the same
    description lies in the target folder is skipped.

    Args:
        minutes: no experiment is started that would not end within this time.
        only: ids, separated by commas; all when empty.
        repeats: instead of the experiment's or the measure's own number (5 where there is none).
        folder: write there instead of `results/`.
        command: how the reader called this, for the record.
        model: folder or hub id instead of the lab's `recorded_model`.
        again: measure also what is recorded already.
        lab_folder: of the lab, when it is not `code/<lab>`.

    Returns:
        the files written. An experiment that fails is reported and does not stop the others.

    Raises:
        LabError: none could be recorded.
        UsageError: there is no such lab or experiment, or its description is wrong.
    """
    host = describe_host()
    plan = read_plan(lab, "cuda" if host.gpus else "cpu", lab_folder)
    wanted = chosen(plan, only)
    campaign = Campaign(
        plan=plan, host=host, limits=Limits.of(minutes), repeats=repeats, default_repeats=REPEATS,
        folder=folder, command=command, model=model, again=again, say=say, module=_record_module,
    )  # fmt: skip
    return campaign.run(wanted)


def chosen(plan: LabPlan, only: str) -> list[Experiment]:
    """The experiments whose ids `only` lists, quickest first; all when it is empty.

    Raises:
        UsageError: there is no such experiment for this device.
    """
    ids = [each.strip() for each in only.split(",") if each.strip()]
    known = [each.id for each in plan.experiments]
    for each in ids:
        if each not in known:
            raise UsageError(f"{plan.name} 没有实验 {each!r}（{plan.device}）",
                             remedy=f"可选：{'、'.join(known)}")  # fmt: skip
    return [each for each in plan.experiments if not ids or each.id in ids]


def measure_here(lab: str, experiment: str, *, repeats: int = 5) -> Record:
    """One experiment on this machine, for a notebook: quiet, and kept under `.lab/records/`.

    Raises:
        LabError: the measurement failed.
        UsageError: there is no such lab or experiment.
    """
    host, python = describe_host(), python_with_torch()
    wanted = {each.id: each for each in experiments(lab, "cuda" if host.gpus else "cpu")
              if each.module}  # fmt: skip
    if experiment not in wanted:
        raise UsageError(f"{lab} 没有实验 {experiment!r}", remedy=f"可选：{'、'.join(wanted)}")
    series = _run(wanted[experiment], python, repeats, quiet=True)
    record = _record(lab, wanted[experiment], series, host, python, repeats, "")
    store.save(record, state_dir() / "records")
    return record


def _record_module(
    lab: str, experiment: Experiment, host: Any, repeats: int, command: str
) -> Record:
    python = python_with_torch()
    series = _run(experiment, python, repeats)
    return _record(lab, experiment, series, host, python, repeats, command)


def _run(
    experiment: Experiment, python: Path, repeats: int, *, quiet: bool = False
) -> list[Series]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "series.json"
        environment = {**os.environ, "PYTHONPATH": _with_sources(), "INFERLAB_ROOT": str(root())}
        try:
            done = subprocess.run(
                experiment.command(python, out, repeats),
                env=environment,
                timeout=experiment.minutes * 60 * 3,
                capture_output=quiet,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{late.timeout / 60:g} 分钟还没有测完", remedy="见上面的输出") from late
        if done.returncode or not out.is_file():
            last = (done.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
            cause = last[0] if last else "原因见上面的输出"
            raise LabError(f"测量进程以 {done.returncode} 退出", remedy=cause)
        return [Series(**each) for each in json.loads(out.read_text())["series"]]


def _with_sources() -> str:
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(root() / "src"), given]))


def _record(
    lab: str, experiment: Experiment, series: list[Series], host: Any, python: Path,
    repeats: int, command: str,
) -> Record:  # fmt: skip
    model = None
    if experiment.model:
        name = Path(experiment.model).stem
        model = Model(name=f"{name}（仅一层的形状）", weights="random", dtype="bf16")
    return Record(
        lab=lab, experiment=experiment.id, device=device_of(host),
        command=command or f"./lab record {lab} --only {experiment.id}", repeats=repeats,
        host=host, software=describe_software(python), model=model,
        parameters={"module": experiment.module}, figures=[Figure.from_series(s) for s in series],
    )  # fmt: skip
