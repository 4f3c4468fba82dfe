"""`./lab record`: run a lab's experiments on this machine and write their records."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(record)


def record(
    lab: Annotated[str, typer.Argument(help="实验，例如 chapter03")],
    minutes: Annotated[float, typer.Option(help="总时间上限（分钟）")] = 30.0,
    only: Annotated[str, typer.Option(help="只做这一项实验")] = "",
    repeats: Annotated[int, typer.Option(min=2, help="每个数重复测几次")] = 5,
    out: Annotated[Path | None, typer.Option(help="写到这里，而不是 results/")] = None,
) -> None:
    """在这台机器上做一个实验的全部测量，每项写一份记录。"""
    from inferlab.records.recording import record_lab

    command = f"./lab record {lab}" + (f" --only {only}" if only else "")
    record_lab(lab, minutes=minutes, only=only, repeats=repeats, folder=out, command=command)
