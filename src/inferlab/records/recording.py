"""Run a lab's experiments and write one record each, quickest first, within a time limit."""

from pathlib import Path

from inferlab.errors import UsageError
from inferlab.hardware.host import describe_host
from inferlab.records import module_experiments, store
from inferlab.records.campaign import Campaign, Say
from inferlab.records.experiments import Experiment, LabPlan, experiments, read_plan
from inferlab.records.schema import Record
from inferlab.records.time_limits import Limits
from inferlab.repository import state_dir


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
    memory_bytes = min((gpu.memory_bytes or 0 for gpu in host.gpus), default=0)
    plan = read_plan(lab, "cuda" if host.gpus else "cpu", lab_folder, memory_bytes=memory_bytes)
    wanted = chosen(plan, only)
    campaign = Campaign(
        plan=plan, host=host, limits=Limits.of(minutes), repeats=repeats, folder=folder,
        command=command, model=model, again=again, say=say,
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
    host = describe_host()
    wanted = {each.id: each for each in experiments(lab, "cuda" if host.gpus else "cpu")
              if each.module}  # fmt: skip
    if experiment not in wanted:
        raise UsageError(f"{lab} 没有实验 {experiment!r}", remedy=f"可选：{'、'.join(wanted)}")
    command = f"./lab record {lab} --only {experiment}"
    record = module_experiments.measure(lab, wanted[experiment], host, repeats, command, quiet=True)
    store.save(record, state_dir() / "records")
    return record
