"""`./lab report`: records as one page with pictures."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(report)


def report(
    files: Annotated[list[Path], typer.Argument(help="记录文件（.json），可以多个")],
    out: Annotated[
        Path | None, typer.Option(help="写到这个文件夹；默认 .lab/reports/<第一份记录的名字>")
    ] = None,
) -> None:
    """把记录做成一页 HTML（自带图片，可直接发给别人）和 PNG。"""
    from inferlab.errors import UsageError
    from inferlab.plots.report import write_report
    from inferlab.repository import state_dir

    if missing := [path for path in files if not path.is_file()]:
        raise UsageError(f"没有文件 {missing[0]}", remedy="给出 ./lab bench 或 record 写的 .json")
    folder = out or state_dir() / "reports" / files[0].stem
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} 不是文件夹", remedy="给出一个文件夹")
    for path in write_report(files, folder):
        typer.echo(str(path))
