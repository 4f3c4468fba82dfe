"""One experiment that needs no engine: its module in a process of its own, and the record that it
becomes."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from inferlab.engines.environments import python_with_torch
from inferlab.errors import LabError
from inferlab.hardware.host import HostInfo
from inferlab.hardware.timing import Series
from inferlab.measure.layer import DTYPES
from inferlab.records.experiments import Experiment
from inferlab.records.provenance import describe_software, device_of
from inferlab.records.schema import Figure, Model, Record
from inferlab.repository import root


def measure(
    lab: str, experiment: Experiment, host: HostInfo, repeats: int, command: str, *,
    quiet: bool = False,
) -> Record:  # fmt: skip
    """Run the experiment's module.

    Args:
        command: how the reader called this, for the record.
        quiet: show nothing of its output.

    Raises:
        LabError: there is no interpreter with torch, or the module failed or took too long.
    """
    python = python_with_torch()
    series = _run(experiment, python, repeats, quiet=quiet)
    model = None
    if experiment.model:
        name, dtype = Path(experiment.model).stem, DTYPES["cuda" if host.gpus else "cpu"]
        model = Model(name=f"{name}（仅一层的形状）", weights="random", dtype=dtype)
    return Record(
        lab=lab, experiment=experiment.id, device=device_of(host), command=command,
        repeats=repeats, host=host, software=describe_software(python), model=model,
        parameters={"module": experiment.module}, figures=[Figure.from_series(s) for s in series],
    )  # fmt: skip


def _run(experiment: Experiment, python: Path, repeats: int, *, quiet: bool) -> list[Series]:
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
