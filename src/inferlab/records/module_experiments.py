"""One experiment that needs no engine: its module in a process of its own, and the record that it
becomes."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferlab.engines.environments import python_with_torch
from inferlab.engines.processes import ProcessId, stop_session
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
        code, errors = _run_to_its_end(
            experiment.command(python, out, repeats), environment, experiment.minutes * 60 * 3,
            quiet=quiet,
        )  # fmt: skip
        if code or not out.is_file():
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            cause = last[0] if last else "原因见上面的输出"
            raise LabError(f"测量进程以 {code} 退出", remedy=cause)
        return [Series(**each) for each in json.loads(out.read_text())["series"]]


def _run_to_its_end(
    command: Sequence[str], environment: Mapping[str, str], limit_s: float, *, quiet: bool
) -> tuple[int, bytes]:
    """Exit code and standard error (where `quiet`). Whatever ends it, Ctrl-C too, the servers that
    the module started end with it: they are of its session.

    Raises:
        LabError: it took longer than the limit.
    """
    pipe = subprocess.PIPE if quiet else None
    with subprocess.Popen(
        command, env=dict(environment), stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        leader = ProcessId.of(process.pid)
        try:
            _, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{limit_s / 60:g} 分钟还没有测完", remedy="见上面的输出") from late
        finally:
            stop_session(leader)
    return process.returncode, errors or b""


def _with_sources() -> str:
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(root() / "src"), given]))
