"""`up`, `down`, `status`, `logs`: an engine and JupyterLab, started, shown and stopped."""

import signal
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inferlab.cli.progress import StartupLine
    from inferlab.engines.choose import Choice, Wish
    from inferlab.engines.lifecycle import Running
    from inferlab.engines.session import Session

PROMPT = "def fibonacci(n):\\n"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)


def up(
    lab: Annotated[str, typer.Argument(help="实验名，例如 chapter03")],
    engine: Annotated[str | None, typer.Option(help="gpu 或 cpu；默认看机器")] = None,
    docker: Annotated[
        bool | None, typer.Option("--docker/--no-docker", help="用不用 Docker；默认看机器")
    ] = None,
    model: Annotated[str, typer.Option(help="模型名或本地目录；默认按显存选，CPU 用内置模型")] = "",
) -> None:
    """启动一个实验：推理引擎和 JupyterLab。"""
    from rich.console import Console

    from inferlab.cli.progress import StartupLine
    from inferlab.engines.choose import Wish
    from inferlab.repository import lab_dir

    lab_dir(lab)
    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    with StartupLine(Console()) as line:
        try:
            running = _start_or_join(lab, Wish(engine, docker, model), line)
        except KeyboardInterrupt:
            line.say("已中断；这次启动的进程都已停止。")
            raise typer.Exit(130) from None
        line.say(_running_text(running))


def _start_or_join(lab: str, wish: "Wish", line: "StartupLine") -> "Running":
    from inferlab.engines import lifecycle
    from inferlab.engines.choose import LabDefaults, choose
    from inferlab.engines.machine import Machine
    from inferlab.settings import Settings

    settings = Settings.load()
    if running := lifecycle.current():
        lifecycle.require_same(running, lab, wish)
        return lifecycle.join(running, settings, say=line.say, on_progress=line.update)
    machine = Machine.probe()
    choice = choose(machine, settings, wish, LabDefaults.of(lab))
    line.say(_choice_text(lab, choice))
    return lifecycle.start(lab, choice, settings, machine, say=line.say, on_progress=line.update)


def down(
    lab: Annotated[str, typer.Argument(help="实验名；不写就停掉正在运行的那个")] = "",
) -> None:
    """停止实验，不留下任何进程；下载的模型保留。"""
    from inferlab.engines import lifecycle, session

    found = session.load()
    if found and lab and found.lab != lab:
        typer.echo(f"{lab} 没有运行（在运行的是 {found.lab}）。")
        return
    stopped = lifecycle.down()
    typer.echo(f"{stopped.lab} 已停止。" if stopped else "没有正在运行的实验。")


def status() -> None:
    """显示正在运行的实验和它的地址。"""
    from inferlab.engines import health, lifecycle

    found = lifecycle.current()
    if not found:
        typer.echo("没有正在运行的实验。启动：./lab up chapter03")
        raise typer.Exit(1)
    state = "可以使用" if health.is_healthy(found.api_url) else "正在启动或没有响应（./lab logs）"
    typer.echo(f"{found.lab}：{state}\n{_addresses(found, _jupyter_url(found))}")


def logs(
    lab: Annotated[str, typer.Argument(help="实验名；不写就是最近启动的那个")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="持续显示")] = False,
    jupyter: Annotated[bool, typer.Option(help="显示 JupyterLab 的日志")] = False,
) -> None:
    """显示引擎的日志。"""
    import subprocess

    from inferlab.engines import compose, session

    found = session.load()
    name = lab or (found.lab if found else "chapter03")
    if found and found.lab == name and found.launcher == "compose":
        engines = compose.engine_services(found.compose)
        shown = (compose.LAB_SERVICE,) if jupyter else engines
        command = compose.logs_command(found.compose, shown, follow=follow)
        subprocess.run(command, env=compose.plain_environment())
        return
    path = session.log_path(name, "jupyter" if jupyter else "engine")
    if found and found.lab == name and found.half_started and not jupyter:
        path = found.logs[0]
    if not path.is_file():
        typer.echo(f"还没有日志 {path}")
        raise typer.Exit(1)
    subprocess.run(["tail", "-n", "200", *(["-f"] if follow else []), str(path)])


def _end_like_ctrl_c(*signals: signal.Signals) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


def _choice_text(lab: str, choice: "Choice") -> str:
    launcher = "Docker Compose" if choice.launcher == "compose" else "本机进程"
    return (
        f"{lab}：vLLM（{choice.engine.upper()}，{launcher}），模型 {choice.model}\n"
        f"  原因：{choice.reason}\n"
        f"  换一种方式：{choice.otherwise}"
    )


def _running_text(running: "Running") -> str:
    found = running.session
    first = (
        f"{found.lab} 已在运行"
        if running.joined
        else f"{found.lab} 已启动（{running.waited_s:.0f} s）"
    )
    report = running.report
    if report.kv_cache_tokens and report.max_model_len:
        first += (
            f"；KV cache {report.kv_cache_tokens:,} token，"
            f"最多同时 {report.max_concurrency:g} 个 {report.max_model_len:,}-token 请求"
        )
    return f"{first}\n{_addresses(found, running.jupyter_url)}\n  停止：./lab down"


def _addresses(found: "Session", jupyter_url: str) -> str:
    body = f'{{"model": "lab", "prompt": "{PROMPT}", "max_tokens": 64, "temperature": 0}}'
    return (
        f"  JupyterLab：{jupyter_url or '没有'}\n"
        f"  API：       {found.api_url}/v1\n"
        f"  试一试：\n"
        f"curl -s {found.api_url}/v1/completions -H 'Content-Type: application/json' -d '{body}'"
    )


def _jupyter_url(found: "Session") -> str:
    from inferlab.engines import jupyter, session
    from inferlab.settings import Settings

    if found.launcher == "native" and "jupyter" not in found.processes:
        return ""
    configured = Settings.load().jupyter_token
    if found.launcher == "compose":
        return jupyter.url(found.jupyter_port, configured or jupyter.CONTAINER_TOKEN)
    return jupyter.url(found.jupyter_port, session.jupyter_token(configured))
