"""`doctor`: the environment check of chapter 2 §2.4.2."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON，给程序读")] = False,
) -> None:
    """检查环境：GPU、驱动、Docker、Python、磁盘、网络、端口（第 2 章 §2.4.2）。"""
    import json
    from dataclasses import asdict

    from inferlab.diagnose.doctor import diagnose, gather
    from inferlab.settings import Settings

    diagnosis = diagnose(gather(Settings.load()))
    if as_json:
        facts = {**asdict(diagnosis), "usable": diagnosis.usable, "summary": diagnosis.summary()}
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        _print_lines(diagnosis.checks, diagnosis.summary())
    if not diagnosis.usable:
        raise typer.Exit(1)


def _print_lines(checks: tuple, summary: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    colour = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
    for check in checks:
        remedy = f" → {check.remedy}" if check.remedy else ""
        line = Text(f"{check.status:<4} ", style=colour[check.status])
        console.print(line.append(f"{check.name}：{check.found}{remedy}", style="default"))
    console.print(summary)
