"""Run a lab's experiments and write one record each, quickest first, within a time limit."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferlab.engines.environments import python_with_torch
from inferlab.errors import LabError, UsageError
from inferlab.hardware.timing import Series
from inferlab.records import store
from inferlab.records.provenance import describe_host, describe_software, device_of
from inferlab.records.schema import Figure, Model, Record
from inferlab.repository import lab_dir, root, state_dir

Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """An entry of `lab.yaml`'s `experiments`, for one kind of device.

    Attributes:
        module: what measures; run as `python -m <module> --out FILE --repeats N …`.
        minutes: how long it takes at most; an experiment that no longer fits is left out.
        model: the measured shape's file, below the repository's root; empty without one.
    """

    id: str
    module: str
    minutes: float
    model: str = ""
    devices: tuple[str, ...] = ("cuda", "cpu")
    extra: dict[str, Any] = field(default_factory=dict)

    def command(self, python: Path, out: Path, repeats: int) -> list[str]:
        words = [str(python), "-m", self.module, "--out", str(out), "--repeats", str(repeats)]
        return [*words, "--config", str(root() / self.model)] if self.model else words


def experiments(lab: str, device: str) -> list[Experiment]:
    """The experiments of a lab that a device (`cuda` or `cpu`) can run, quickest first."""
    content = yaml.safe_load((lab_dir(lab) / "lab.yaml").read_text(encoding="utf-8"))
    found = []
    for entry in content.get("experiments", []):
        model = entry.get("model", "")
        found.append(Experiment(
            id=entry["id"], module=entry["module"], minutes=entry["minutes"],
            model=model.get(device, "") if isinstance(model, dict) else model,
            devices=tuple(entry.get("devices", ("cuda", "cpu"))),
        ))  # fmt: skip
    return sorted((e for e in found if device in e.devices), key=lambda e: e.minutes)


def record_lab(
    lab: str,
    *,
    minutes: float = 30.0,
    only: str = "",
    repeats: int = 5,
    folder: Path | None = None,
    command: str = "",
    say: Say = print,
) -> list[Path]:
    """Run the lab's experiments and write their records.

    Args:
        minutes: no experiment is started that would not end within this time.
        only: the id of a single experiment.
        folder: write there instead of `results/`.
        command: how the reader called this, for the record.

    Returns:
        the files written. An experiment that fails is reported and does not stop the others.

    Raises:
        LabError: none could be recorded.
        UsageError: there is no such lab or experiment.
    """
    host, python = describe_host(), python_with_torch()
    wanted = experiments(lab, "cuda" if host.gpus else "cpu")
    if only and only not in [e.id for e in wanted]:
        raise UsageError(
            f"{lab} 没有实验 {only!r}", remedy=f"可选：{'、'.join(e.id for e in wanted)}"
        )
    started, written, failed = time.monotonic(), [], []
    for experiment in wanted:
        left = minutes - (time.monotonic() - started) / 60
        if only not in ("", experiment.id):
            continue
        if experiment.minutes > left:
            say(f"跳过 {experiment.id}：约需 {experiment.minutes:g} 分钟，只剩 {left:.1f} 分钟")
            continue
        say(f"测量 {experiment.id}（约 {experiment.minutes:g} 分钟以内）…")
        try:
            series = _run(experiment, python, repeats)
        except LabError as error:
            say(f"{experiment.id} 失败：{error}")
            failed.append(experiment.id)
            continue
        record = _record(lab, experiment, series, host, python, repeats, command)
        written.append(store.save(record, folder))
        say(f"已写入 {written[-1]}")
    if not written:
        raise LabError(f"{lab} 没有写出任何记录（失败：{'、'.join(failed) or '无'}）",
                       remedy="看上面的输出；时间不够可加大 --minutes")  # fmt: skip
    return written


def measure_here(lab: str, experiment: str, *, repeats: int = 5) -> Record:
    """One experiment on this machine, for a notebook: quiet, and kept under `.lab/records/`.

    Raises:
        LabError: the measurement failed.
        UsageError: there is no such lab or experiment.
    """
    host, python = describe_host(), python_with_torch()
    wanted = {each.id: each for each in experiments(lab, "cuda" if host.gpus else "cpu")}
    if experiment not in wanted:
        raise UsageError(f"{lab} 没有实验 {experiment!r}", remedy=f"可选：{'、'.join(wanted)}")
    series = _run(wanted[experiment], python, repeats, quiet=True)
    record = _record(lab, wanted[experiment], series, host, python, repeats, "")
    store.save(record, state_dir() / "records")
    return record


def _run(
    experiment: Experiment, python: Path, repeats: int, *, quiet: bool = False
) -> list[Series]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "series.json"
        environment = {**os.environ, "PYTHONPATH": _with_sources(), "INFERLAB_ROOT": str(root())}
        done = subprocess.run(
            experiment.command(python, out, repeats),
            env=environment,
            timeout=experiment.minutes * 60 * 3,
            capture_output=quiet,
            check=False,
        )
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
