"""A lab from `up` to `down`: start or join the engine and JupyterLab, stop both, say what runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from inferlab.engines import compose, environments, health, jupyter, native, session, startup_log
from inferlab.engines.choose import Choice, Wish, require_memory
from inferlab.engines.deployment import RunningDeployment, deployment
from inferlab.engines.layout import Layout, layouts_to_start
from inferlab.engines.machine import Machine
from inferlab.engines.ports import require_free
from inferlab.engines.processes import ProcessId, first_exit_code, stop_session
from inferlab.engines.session import ENGINE, JUPYTER, ROUTER, Session
from inferlab.engines.startup import OnProgress, Starting, failure, wait_until_answering
from inferlab.engines.temporary import Recipe
from inferlab.errors import LabError
from inferlab.repository import lab_dir
from inferlab.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    """A lab whose engine answers.

    Attributes:
        waited_s: seconds from starting (or joining) the engine to its first completion.
        joined: it was running before this call.
    """

    session: Session
    jupyter_url: str
    waited_s: float
    joined: bool
    report: startup_log.StartupReport


def current() -> Session | None:
    """The session whose engine is alive (answering or still starting); None otherwise."""
    found = session.load()
    return found if found and is_alive(found) else None


def is_alive(found: Session) -> bool:
    """Whether the session's engine process or container runs, or the first of several does."""
    if found.launcher == "compose":
        return compose.is_running(found.compose)
    if found.half_started:
        return any(each.is_alive() for each in found.engines.values())
    front = found.front
    return front is not None and front.is_alive()


def start(
    lab: str,
    choice: Choice,
    settings: Settings,
    machine: Machine,
    *,
    say: Say,
    on_progress: OnProgress,
) -> Running:
    """Start the lab; whatever fails or interrupts, nothing stays behind.

    Raises:
        LabError: too little memory or disk, a port is taken, or the engine or JupyterLab did not
            start; with cause and remedy.
    """
    down()
    try:
        started, earlier_s = _start_engine(lab, choice, settings, machine, say, on_progress)
        waited_s = earlier_s + wait_until_answering(_starting(started), on_progress)
        started, jupyter_url = _with_jupyter(started, settings, say)
    except BaseException as error:
        _stop_after(error)
        raise
    return Running(started, jupyter_url, waited_s, False, report(started))


def join(running: Session, settings: Settings, *, say: Say, on_progress: OnProgress) -> Running:
    """Wait for a lab that an earlier `up` started; an interruption leaves it running.

    Raises:
        LabError: the engine or JupyterLab did not start, or an earlier `up` still starts it.
    """
    if running.half_started:
        raise LabError(f"{running.lab} 的几个引擎正在先后启动，还没有到路由",
                       remedy="等那个 ./lab up 做完；它若已中断，先 ./lab down")  # fmt: skip
    try:
        waited_s = wait_until_answering(_starting(running), on_progress)
    except LabError as error:
        _stop_after(error)
        raise
    joined, jupyter_url = _with_jupyter(running, settings, say)
    return Running(joined, jupyter_url, waited_s, True, report(joined))


def require_same(running: Session, lab: str, wish: Wish) -> None:
    """Raise a LabError when what runs is not what is asked for; an empty wish accepts anything."""
    if running.lab != lab:
        raise LabError(f"{running.lab} 正在运行", remedy="先 ./lab down，再启动另一个实验")
    launcher = {None: running.launcher, True: "compose", False: "native"}[wish.docker]
    folder = Path(wish.model).expanduser() if wish.model else None
    model = str(folder.resolve()) if folder and folder.is_dir() else wish.model
    wanted = (wish.engine or running.engine, launcher, model or running.model)
    found = (running.engine, running.launcher, running.model)
    if wanted != found:
        raise LabError(
            f"{lab} 已在运行，但配置不同（{'、'.join(found)}，要求的是 {'、'.join(wanted)}）",
            remedy="先 ./lab down，再重新启动",
        )


def down() -> Session | None:
    """Stop whatever this clone has running; gives the stopped session, None if there was none."""
    found = session.load()
    if found is None:
        return None
    if found.launcher == "compose":
        compose.down(found.compose)
    for process in reversed(found.processes.values()):
        stop_session(process)
    session.forget()
    return found


def engine_log(found: Session) -> str:
    """The engine's log so far; of several engines and their router one after another."""
    if found.launcher == "compose" and compose.is_running(found.compose):
        return "".join(compose.engine_logs(found.compose))
    return "\n".join(_native_logs(found))


def _native_logs(found: Session) -> list[str]:
    return [startup_log.read(log) for log in found.logs]


def report(found: Session) -> startup_log.StartupReport:
    """The engine's own start-up figures, from its log; from `/metrics` where that has none."""
    from_log = startup_log.report(engine_log(found))
    return from_log if from_log.kv_cache_tokens else startup_report(found.api_url)


def startup_report(base_url: str = "") -> startup_log.StartupReport:
    """The running engine's figures: from this clone's log, else from the engine's `/metrics`.

    Args:
        base_url: the engine's address; the running lab's when empty.

    Raises:
        OSError: no engine answers.
    """
    found = session.load()
    if not base_url and found:
        from_log = startup_log.report(engine_log(found))
        if from_log.kv_cache_tokens:
            return from_log
    return startup_log.report_from_metrics(health.metrics(base_url or session.api_url()))


def _start_engine(
    lab: str,
    choice: Choice,
    settings: Settings,
    machine: Machine,
    say: Say,
    on_progress: OnProgress,
) -> tuple[Session, float]:
    """The session, and the seconds that were already waited for the first of several engines."""
    require_memory(machine, choice, choice.layout.workers if choice.layout else 1)
    require_free(settings.api_port, "LAB_API_PORT")
    require_free(settings.jupyter_port, "LAB_JUPYTER_PORT")
    new = Session(
        lab=lab,
        launcher=choice.launcher,
        engine=choice.engine,
        model=choice.model,
        api_port=settings.api_port,
        jupyter_port=settings.jupyter_port,
        log=str(session.log_path(lab)),
        processes={},
    )
    if choice.launcher == "compose":
        return _start_containers(new, choice, settings, machine), 0.0
    python = environments.ensure(native.VLLM.environment(choice.engine), settings, say)
    if choice.layout:
        return _start_workers(new, choice.layout, choice, python, say, on_progress)
    return _start_native(new, choice, settings, python), 0.0


def _start_containers(
    new: Session, choice: Choice, settings: Settings, machine: Machine
) -> Session:
    override = choice.layout.compose if choice.layout else ""
    command = compose.command(machine.docker.compose, new.lab, choice.engine, override)
    new = replace(new, compose=command)
    session.save(new)
    try:
        compose.start_engine(command, compose.environment(choice.engine, choice.model, settings))
    except LabError:
        # Engines behind a router: Compose waits for them, and does not say why one ended.
        code, log = compose.first_exit_code(command), "".join(compose.engine_logs(command))
        if code and log:
            raise failure(_starting(new), log, code) from None
        raise
    return new


def _start_native(new: Session, choice: Choice, settings: Settings, python: Path) -> Session:
    process = native.start(choice, settings, lab=new.lab, python=python, log=Path(new.log))
    new = new.with_process(ENGINE, ProcessId.of(process.pid))
    session.save(new)
    return new


def _start_workers(
    new: Session,
    layout: Layout,
    choice: Choice,
    python: Path,
    say: Say,
    on_progress: OnProgress,
) -> tuple[Session, float]:
    """Several engines and the router before them, each a process of the session; and the seconds
    waited for those that had to answer before the next one might start."""
    folder, waited_s = lab_dir(new.lab), 0.0

    def recipe(role: str) -> Recipe:
        config = native.configuration(new.lab, choice.engine, role)
        return Recipe(role, choice.engine, python, config, Path(choice.model), Path(new.log))

    planned = deployment(layout, recipe, config=folder / "lab.yaml", log=Path(new.log),
                         port=new.api_port)  # fmt: skip
    running = RunningDeployment(planned)
    try:
        for first in running.launching():
            session.save(_with_processes(new, running))
            waited_s += wait_until_answering(first.starting(), on_progress)
            say(f"{first.recipe.name} 就绪，占好了显存；同一块 GPU 上的下一个现在启动 …")
    except BaseException:
        running.stop()
        raise
    new = _with_processes(new, running)
    session.save(new)
    return new, waited_s


def _with_processes(new: Session, running: RunningDeployment) -> Session:
    """The session with the workers and the router that have been started."""
    for name, engine in running.engines.items():
        new = new.with_process(name, engine.leader)
    return new.with_process(ROUTER, running.leader) if running.leader else new


def _starting(started: Session) -> Starting:
    if started.launcher == "compose":
        read_logs = partial(compose.engine_logs, started.compose)
        exit_code = partial(compose.engine_exit_code, started.compose)
    else:
        read_logs = partial(_native_logs, started)
        exit_code = partial(first_exit_code, started.engines.values())
    return Starting(
        base_url=started.api_url,
        read_logs=read_logs,
        exit_code=exit_code,
        log=Path(started.log),
        config=_configuration(started),
    )


def _configuration(started: Session) -> Path:
    """What a reader would change after a failure."""
    if layouts_to_start(started.lab):
        return lab_dir(started.lab) / "engine"
    return native.configuration(started.lab, started.engine)


def _with_jupyter(started: Session, settings: Settings, say: Say) -> tuple[Session, str]:
    if environments.bundle():
        say("离线包里没有 JupyterLab；notebook 在有网络的机器上看")
        return started, ""
    say("正在启动 JupyterLab …")
    if started.launcher == "compose":
        token = settings.jupyter_token or jupyter.CONTAINER_TOKEN
        variables = compose.environment(started.engine, started.model, settings)
        compose.start_lab(started.compose, variables)
    else:
        token = session.jupyter_token(settings.jupyter_token)
        started = _with_native_jupyter(started, token)
    jupyter.wait_until_ready(started.jupyter_port, token, partial(_jupyter_problem, started))
    return started, jupyter.url(started.jupyter_port, token)


def _with_native_jupyter(started: Session, token: str) -> Session:
    known = started.processes.get(JUPYTER)
    if known and known.is_alive():
        return started
    require_free(started.jupyter_port, "LAB_JUPYTER_PORT")
    log = session.log_path(started.lab, JUPYTER)
    process = jupyter.start(started.jupyter_port, token, lab=started.lab, log=log)
    started = started.with_process(JUPYTER, ProcessId.of(process.pid))
    session.save(started)
    return started


def _jupyter_problem(started: Session) -> str:
    """Why JupyterLab has ended; empty while it runs."""
    if started.launcher == "compose":
        return compose.problem(started.compose, compose.LAB_SERVICE)
    if started.processes[JUPYTER].is_alive():
        return ""
    lines = startup_log.read(session.log_path(started.lab, JUPYTER)).strip().splitlines()
    return lines[-1] if lines else "没有输出"


def _stop_after(error: BaseException) -> None:
    found = session.load()
    if found and found.launcher == "compose":
        path = Path(found.log)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(compose.engine_logs(found.compose)), encoding="utf-8")
    try:
        down()
    except LabError as second:
        error.add_note(str(second))
