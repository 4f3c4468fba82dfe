"""Several engines behind one address: which role each has, where it runs, and the router before them.

A lab's `deployments:` name roles and places: `pd: {prefill: [0], decode: [1]}`. A role is an engine
file, a place a GPU, without GPUs a core. To what measures, a deployment is an engine like any other.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inferlab.engines import startup_log, temporary
from inferlab.engines.processes import ProcessId, start_in_own_session, stop_session
from inferlab.engines.startup import Starting, wait_until_answering
from inferlab.engines.temporary import Recipe, TemporaryEngine, free_port
from inferlab.errors import LabError, UsageError
from inferlab.repository import root

HANDOVER = frozenset({"prefill", "decode"})
COLOCATED = "colocated"


@dataclass(frozen=True)
class Layout:
    """An entry of `deployments:`.

    Attributes:
        places: role → GPU (or core) of each worker with it.
    """

    name: str
    places: dict[str, tuple[int, ...]]

    @property
    def workers(self) -> int:
        return sum(map(len, self.places.values()))


def read_layouts(lab: str, described: Mapping[str, Any]) -> dict[str, Layout]:
    """The layouts of a `lab.yaml`, checked.

    Raises:
        UsageError: a role is unknown, or stands without its other half.
    """
    found = {}
    for name, roles in (described.get("deployments") or {}).items():
        places = {role: tuple(each) for role, each in roles.items()}
        if set(places) not in ({COLOCATED}, set(HANDOVER)) or not all(places.values()):
            raise UsageError(
                f"{lab}/lab.yaml 的 deployments.{name} 写了 {'、'.join(places) or '空'}",
                remedy="写 prefill 和 decode，或只写 colocated；每个角色列出 GPU，例如 prefill: [0]",
            )
        found[name] = Layout(name, places)
    return found


@dataclass(frozen=True)
class Deployment:
    """How workers and their router are started.

    Attributes:
        workers: name (`prefill-0`) → recipe; the role is the name's first part.
        log: of the router.
        config: the lab.yaml.
        router: further options of `inferlab.engines.router`.
    """

    name: str
    device: str
    workers: dict[str, Recipe]
    config: Path
    log: Path
    router: tuple[str, ...] = ()
    port: int = 0

    @property
    def model(self) -> Path:
        """Folder of the model that all workers serve."""
        return next(iter(self.workers.values())).model

    def options(self) -> dict[str, Any]:
        """worker → its configuration."""
        return {name: recipe.options() for name, recipe in self.workers.items()}

    def start(self, *, limit_s: float) -> "RunningDeployment":
        """Start all workers at once, then the router; gives them when a request was answered.

        Raises:
            LabError: one did not start; nothing is left of any.
        """
        began = time.monotonic()
        running = RunningDeployment(replace(self, port=self.port or free_port()))
        try:
            running.start_workers(limit_s)
            running.start_router()
        except BaseException:
            running.stop()
            raise
        running.seconds = time.monotonic() - began
        return running


@dataclass
class RunningDeployment:
    """Workers and router; answers at `url` like one engine.

    Attributes:
        engines: worker's name → the engine.
        seconds: from the first process's start to the first token through the router.
    """

    recipe: Deployment
    engines: dict[str, TemporaryEngine] = field(default_factory=dict)
    leader: ProcessId | None = None
    seconds: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.recipe.port}"

    @property
    def described_at(self) -> str:
        """A worker's address: the router cannot say which engine it is."""
        return next(iter(self.engines.values())).url

    @property
    def alive(self) -> bool:
        """Whether the router and every worker still run."""
        leader = self.leader
        return bool(leader and leader.is_alive()) and all(e.alive for e in self.engines.values())

    def start_workers(self, limit_s: float) -> None:
        """All at once; a lab with N workers starts in the time of one."""
        began = time.monotonic()
        for name, recipe in self.recipe.workers.items():
            self.engines[name] = temporary.launch(_with_handshake(recipe))
        for name, engine in list(self.engines.items()):
            left = limit_s - (time.monotonic() - began)
            self.engines[name] = temporary.awaited(engine, limit_s=max(left, 1.0))

    def start_router(self) -> None:
        """The router's process, until it has answered a completion."""
        log = self.recipe.log
        process = start_in_own_session(
            router_command(self.urls(), self.recipe.port, self.recipe.router),
            log=log, environment={**os.environ, "PYTHONUNBUFFERED": "1"}, folder=root(),
        )  # fmt: skip
        self.leader = ProcessId.of(process.pid)
        read = lambda: startup_log.read(log)  # noqa: E731
        starting = Starting(self.url, read, self.leader.exit_code, log, self.recipe.config)
        wait_until_answering(starting, lambda *_: None, stall_s=60.0)

    def urls(self) -> dict[str, list[str]]:
        """role → the workers' addresses."""
        found: dict[str, list[str]] = {}
        for name, engine in self.engines.items():
            found.setdefault(role_of(name), []).append(engine.url)
        return found

    def startup(self) -> startup_log.StartupReport:
        """What the first worker's log says of its start."""
        return next(iter(self.engines.values())).startup()

    def log_text(self) -> str:
        """The workers' logs, one after another."""
        return "\n".join(engine.log_text() for engine in self.engines.values())

    def stop(self) -> None:
        """End the router and all workers; they may have ended already."""
        if self.leader:
            stop_session(self.leader)
        for engine in self.engines.values():
            engine.stop()

    def ended(self) -> LabError:
        """Which part is no longer there, and why."""
        for engine in self.engines.values():
            if not engine.alive:
                return engine.ended()
        lines = startup_log.read(self.recipe.log).strip().splitlines()
        return LabError(f"路由中途退出：{lines[-1] if lines else '没有输出'}",
                        remedy=f"看日志 {self.recipe.log}")  # fmt: skip


def deployment(
    layout: Layout, recipe_of: Callable[[str], Recipe], *, config: Path, log: Path,
    router: tuple[str, ...] = (),
) -> Deployment:
    """A layout with each worker's recipe, port and place.

    Args:
        recipe_of: role → the recipe of its engine file.
        log: of the router; the workers' lie beside it.
    """  # fmt: skip
    workers = {}
    for role, places in layout.places.items():
        for number, place in enumerate(places):
            name = f"{role}-{number}"
            known = recipe_of(role)
            workers[name] = replace(
                known, name=name, log=log.with_name(f"{log.stem}-{name}.log"),
                environment=known.environment | _place(known.device, place),
            )  # fmt: skip
    device = next(iter(workers.values())).device
    return Deployment(layout.name, device, workers, config, log, router)


def router_command(urls: Mapping[str, list[str]], port: int, options: tuple[str, ...]) -> list[str]:
    """The router's command line for workers by role."""
    flags = {"prefill": "--prefill", "decode": "--decode", COLOCATED: "--serve"}
    named = [word for role, each in urls.items() for url in each for word in (flags[role], url)]
    return [sys.executable, "-m", "inferlab.engines.router", "--port", str(port), *named, *options]


def role_of(worker: str) -> str:
    """`prefill-0` → `prefill`."""
    return worker.rpartition("-")[0]


def _with_handshake(recipe: Recipe) -> Recipe:
    """With a port of its own at which NIXL's workers learn of each other's memory."""
    handshake = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
    }
    return replace(recipe, environment=recipe.environment | handshake)


def _place(device: str, place: int) -> dict[str, str]:
    """The worker's GPU, or its core."""
    if device == "cpu":
        return {"VLLM_CPU_OMP_THREADS_BIND": str(place % (os.cpu_count() or 1))}
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return {"CUDA_VISIBLE_DEVICES": visible[place] if place < len(visible) else str(place)}
