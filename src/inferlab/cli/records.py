"""`./lab records`: list, show, compare, rederive, import, and the JSON schema."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from inferlab.records.compare import Pair
    from inferlab.records.schema import Record

KINDS = {"experiment": "实验", "benchmark": "测量", "ab": "A/B", "import": "导入"}
records = typer.Typer(help="查看、比较和导入测量记录。", no_args_is_help=True)
Which = Annotated[str, typer.Argument(help="文件、latest，或 list 里的名字（可只写结尾）")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(records, name="records")


@records.command("list")
def list_all() -> None:
    """列出 results/ 和 .lab/records/ 里的全部记录。"""
    from rich.table import Table

    from inferlab.cli.bench_view import wide_console
    from inferlab.records.catalogue import all_records, short_name

    found, bad = all_records()
    console = wide_console()
    table = Table("名字", "种类", "设备", "日期", "重复", "备注")
    for path, record in found:
        note = "不完整" if record.partial else ""
        table.add_row(short_name(path), KINDS[record.kind], record.device, record.created[:16],
                      str(record.repeats), note)  # fmt: skip
    console.print(table if found else "还没有记录。测量：./lab bench 或 ./lab record chapter03")
    for line in bad:
        console.print(f"跳过：{line}", markup=False, soft_wrap=True)


@records.command()
def show(which: Which) -> None:
    """显示一份记录：从哪来、测了什么、结果如何。"""
    from inferlab.cli.bench_view import show_comparisons, show_record, wide_console
    from inferlab.records.catalogue import find_record
    from inferlab.records.rooflines import describe

    path, record = find_record(which)
    console = wide_console()
    for line in (str(path), describe(record), f"命令：{record.command}", *_origin(record)):
        console.print(line, markup=False, soft_wrap=True)
    if record.runs:
        show_record(console, record)
        if record.comparisons:
            show_comparisons(console, record.comparisons)
    else:
        _show_figures(console, record)


@records.command()
def compare(a: Which, b: Which) -> None:
    """比较两份记录中相同条件的指标：B ÷ A 和区间。"""
    from rich.table import Table

    from inferlab.cli.bench_view import VERDICTS, number, wide_console
    from inferlab.records.catalogue import find_record
    from inferlab.records.compare import compare_records

    found = compare_records(find_record(a)[1], find_record(b)[1])
    console = wide_console()
    table = Table("指标", "条件", "A", "B", "B ÷ A", "结论")
    for pair in found.pairs:
        verdict = VERDICTS[pair.comparison.verdict] if pair.comparison else "重复不足，不下结论"
        labels = "，".join(f"{key}={value}" for key, value in pair.a.labels.items())
        table.add_row(f"{pair.a.name} {pair.a.unit}".strip(), labels, number(pair.a),
                      number(pair.b), _ratio(pair), verdict)  # fmt: skip
    console.print(table)
    notes = [f"注意：{line}" for line in found.caveats]
    for line in [*notes, "两份记录没有交替测量，慢慢漂移的因素不在区间里；要下结论请用 ./lab ab。"]:
        console.print(line, markup=False, soft_wrap=True)


@records.command()
def rederive(which: Which) -> None:
    """按现在的定义，从记录里的各次运行重新算 goodput_ab 的结果，写回原处。"""
    from datetime import UTC, datetime

    from inferlab.cli.bench_view import show_comparisons, wide_console
    from inferlab.errors import LabError, UsageError
    from inferlab.records import store
    from inferlab.records.catalogue import find_record
    from inferlab.records.goodput_ab import with_capacities
    from inferlab.records.provenance import commit_of_clone

    path, record = find_record(which)
    if record.parameters.get("description", {}).get("measure") != "goodput_ab":
        raise UsageError(f"{path} 不是 goodput_ab 的记录", remedy="./lab records list 列出全部")
    found = with_capacities(record)
    if not found.comparisons:
        raise LabError(f"{path} 里两边都爬到头的轮次不足 2 轮，没有改动", remedy="重新测量这一项")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"at": at, "git_commit": commit_of_clone()}
    parameters = found.parameters | {"rederived": note}
    store.write(found.model_copy(update={"parameters": parameters}), path)
    typer.echo(f"重新算好，写回 {path}")
    show_comparisons(wide_console(), found.comparisons)


@records.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="vllm bench serve、GuideLLM 或 AIPerf 的结果文件")],
    device: Annotated[str, typer.Option(help="在什么硬件上测的，例如 'NVIDIA H200'")] = "",
    out: Annotated[Path | None, typer.Option(help="记录写到这个文件夹")] = None,
) -> None:
    """把其他测量工具的结果文件转成记录。"""
    from inferlab.records import store
    from inferlab.records.importers import VERSIONS, import_result
    from inferlab.repository import state_dir

    record = import_result(file, device)
    path = store.save(record, out or state_dir() / "records")
    tool, version = record.parameters["tool"], record.parameters["tool_version"]
    typer.echo(f"{tool} {version or '（版本未知）'}：{len(record.figures)} 个指标 → {path}")
    if version and version != VERSIONS[tool]:
        typer.echo(f"注意：按 {VERSIONS[tool]} 的格式读取，{version} 的定义可能不同。")


@records.command()
def schema() -> None:
    """打印记录的 JSON Schema。"""
    import json

    from inferlab.records.schema import Record

    typer.echo(json.dumps(Record.model_json_schema(), ensure_ascii=False, indent=2))


def _origin(record: "Record") -> list[str]:
    lines = [f"不完整：{record.partial}"] if record.partial else []
    sides = (" A", " B") if record.engine_b else ("", "")
    for side, engine in zip(sides, (record.engine, record.engine_b), strict=True):
        if engine and engine.config:
            config = "，".join(f"{key}={value}" for key, value in engine.config.items())
            lines.append(f"引擎配置{side}（{engine.config_source}）：{config}")
    if starts := record.parameters.get("starts"):
        seconds = "、".join(f"{each['seconds']:.0f}" for each in starts)
        tuned = len({key for each in starts for key in each["kernels"]})
        differ = len(record.parameters["kernels_chosen_differently"])
        kernels = f"；{tuned} 个 kernel 按计时挑选，{differ} 个各次不同" if tuned else ""
        lines.append(f"每次都用空的编译缓存启动：{seconds} s{kernels}")
    return lines


def _show_figures(console: "Console", record: "Record") -> None:
    from rich.table import Table

    from inferlab.cli.bench_view import number

    table = Table("指标", "条件", "均值 ± 95 % 区间", "单位")
    for figure in record.figures:
        labels = "，".join(f"{key}={value}" for key, value in figure.labels.items())
        table.add_row(figure.name, labels, number(figure), figure.unit)
    console.print(table)


def _ratio(pair: "Pair") -> str:
    found = pair.comparison
    if found:
        return f"{found.ratio:.3f}（{found.low:.3f} – {found.high:.3f}）"
    return f"{pair.b.mean / pair.a.mean:.3f}" if pair.a.mean else "—"
