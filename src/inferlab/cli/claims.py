"""`./lab claims`: the book's sentences and what the records say about them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inferlab.book.claims import Finding
    from inferlab.measure.statistics import Interval

COLOURS = {"证实": "green", "推翻": "red", "无法比较": "yellow"}
SPEAKERS = {"book": "书", "lab": "本实验的说法"}


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(claims)


def claims(
    lab: Annotated[str, typer.Argument(help="实验，例如 chapter03；缺省为全部")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="输出 JSON，给程序读")] = False,
    results: Annotated[
        Path | None, typer.Option(help="另一处记录，布局同 results/（<设备>/<实验>/*.json）")
    ] = None,
) -> None:
    """书里的说法与记录对照：证实、推翻、无法比较。"""
    import json

    from inferlab.book.claims import judge_labs
    from inferlab.errors import UsageError

    if results is not None and not results.is_dir():
        raise UsageError(f"没有目录 {results}", remedy="给出记录所在的目录")
    found = judge_labs([lab] if lab else [], results)
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in found], ensure_ascii=False, indent=2))
    else:
        _print(found)


def _print(findings: "list[Finding]") -> None:
    from collections import Counter

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for each in findings:
        claim = each.claim
        title = Text(f"{each.verdict}  ", style=COLOURS[each.verdict])
        console.print(title.append(f"「{claim.says}」", style="bold"))
        console.print(f"  {SPEAKERS[claim.by]}：{claim.section}", markup=False)
        console.print(f"  条件：{claim.condition}；{each.device}", markup=False)
        for label, interval in each.measured.items():
            console.print(f"  {label}：{_show(label, interval)}", markup=False)
        console.print(f"  判据：{each.reason}", markup=False)
        for source in each.sources:
            line = f"  记录：{source.path}（{source.date}，commit {source.commit}）"
            console.print(line, style="dim", markup=False)
        console.print()
    counts = Counter(each.verdict for each in findings)
    console.print("，".join(f"{name} {counts[name]}" for name in COLOURS), markup=False)


def _show(label: str, interval: "Interval") -> str:
    from inferlab.book.quantities import QUANTITIES

    units = {quantity.label: quantity.unit for quantity in QUANTITIES.values()}
    unit = units.get(label, "")
    scale = 100.0 if unit == "%" else 1.0
    values = (interval.mean, interval.low, interval.high)
    mean, low, high = (_three_digits(scale * value) for value in values)
    bounds = f"95 % 区间 {low}–{high}" if interval.n > 1 else "只测了一次，没有区间"
    return f"{mean}{unit and ' ' + unit}（{bounds}）"


def _three_digits(value: float) -> str:
    """`1.00`, not `1`: beside 0.996 a reader would take it for exact."""
    return f"{value:#.3g}".removesuffix(".")
