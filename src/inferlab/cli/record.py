"""`./lab record`: run a lab's experiments on this machine and write their records."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(record)


def record(
    lab: Annotated[str, typer.Argument(help="实验，例如 chapter03")],
    minutes: Annotated[float, typer.Option(help="总时间上限（分钟），含启动引擎")] = 30.0,
    only: Annotated[str, typer.Option(help="只做这些实验，用逗号分开")] = "",
    repeats: Annotated[
        int | None, typer.Option(min=2, help="每个数重复测几次（默认按实验描述，否则 5）")
    ] = None,
    model: Annotated[str, typer.Option(help="模型目录或模型名，代替 recorded_model")] = "",
    again: Annotated[bool, typer.Option("--again", help="已有同样设置的记录也重测")] = False,
    out: Annotated[Path | None, typer.Option(help="写到这里，而不是 results/")] = None,
) -> None:
    """在这台机器上做一个实验的全部测量，每项写一份记录。"""
    from inferlab.records.recording import record_lab

    # A folder of this machine is nobody else's: the record's model field names it.
    told = "" if not model else " --model …" if Path(model).is_dir() else f" --model {model}"
    told += f" --repeats {repeats}" if repeats else ""
    command = f"./lab record {lab}" + (f" --only {only}" if only else "") + told
    record_lab(
        lab, minutes=minutes, only=only, repeats=repeats, folder=out, command=command,
        model=model, again=again, say=lambda line: print(line, flush=True),
    )  # fmt: skip
