"""Several engines behind one address: the role of each, where it runs, and the router before them.

A lab's `deployments:` name roles and places: `pd: {prefill: [0], decode: [1]}`. A role is an engine
file, a place a GPU, without GPUs a core. What measures takes a deployment for an engine.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inferlab.engines import startup_log, temporary
from inferlab.engines.ports import free_port
from inferlab.engines.processes import (
    ProcessId,
    first_exit_code,
    start_in_own_session,
    stop_session,
)
from inferlab.engines.session import worker_log
from inferlab.engines.startup import Starting, shown, wait_until_answering
from inferlab.engines.temporary import Recipe, TemporaryEngine
from inferlab.errors import LabError, UsageError
from inferlab.repository import lab_description, lab_dir, root

HANDOVER = frozenset({"prefill", "decode"})
COLOCATED = "colocated"
# A worker that shares two cores with others answers late, and must not be taken for frozen.
_ON_CPU = ("--health-interval", "5")
DRAIN_S = 60.0
_BESIDE_ROLES = ("flags", "environment")
_ROUTER_FLAGS = {"prefill": "--prefill", "decode": "--decode", COLOCATED: "--serve"}


@dataclass(frozen=True)
class Layout:
    """An entry of `deployments:`.

    Attributes:
        places: role → GPU (or core) of each worker with it.
        flags: of every worker, beyond its engine file.
        environment: device (`cuda` or `cpu`) → variables that every worker gets there.
    """

    name: str
    places: dict[str, tuple[int, ...]]
    flags: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)

    def variables(self, device: str) -> dict[str, str]:
        """What every worker gets on a device; `gpu` is another word for `cuda`."""
        return self.environment.get("cuda" if device == "gpu" else device, {})

    @property
    def workers(self) -> int:
        """How many there are."""
        return sum(map(len, self.places.values()))

    @property
    def gpus(self) -> int:
        """How many GPUs there must be."""
        return 1 + max(place for each in self.places.values() for place in each)


def read_layouts(lab: str, described: Mapping[str, Any]) -> dict[str, Layout]:
    """The layouts of a `lab.yaml`, checked.

    Raises:
        UsageError: a role is unknown or stands without its other half, or a variable has no text.
    """
    found = {}
    for name, entry in (described.get("deployments") or {}).items():
        flags = dict(entry.get("flags") or {})
        variables = _variables(f"{lab}/lab.yaml 的 deployments.{name}", entry.get("environment"))
        places = {role: tuple(each) for role, each in entry.items() if role not in _BESIDE_ROLES}
        if set(places) not in ({COLOCATED}, set(HANDOVER)) or not all(places.values()):
            raise UsageError(
                f"{lab}/lab.yaml 的 deployments.{name} 写了 {'、'.join(places) or '空'}",
                remedy="写 prefill 和 decode，或只写 colocated，各列出 GPU：prefill: [0]",
            )
        found[name] = Layout(name, places, flags, variables)
    return found


def _variables(where: str, given: Any) -> dict[str, dict[str, str]]:
    """device → variables, checked."""
    known = given or {}
    if set(known) - {"cuda", "cpu"} or not all(isinstance(each, dict) for each in known.values()):
        raise UsageError(
            f"{where} 的 environment 没有按设备写", remedy="例如 environment: {cuda: {名字: 值}}"
        )
    for name, value in (pair for each in known.values() for pair in each.items()):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{where} 的 {name} 读成了 {value!r}", remedy="给值加上引号")
    return {device: {k: str(v) for k, v in each.items()} for device, each in known.items()}


def layouts_of(lab: str) -> dict[str, Layout]:
    """All of a lab's layouts; none for most labs."""
    return read_layouts(lab, lab_description(lab_dir(lab)))


def layout_to_start(lab: str) -> Layout | None:
    """What `./lab up` starts of a lab that has deployments (its `up:`); None for the others.

    Raises:
        UsageError: `up` names none of them.
    """
    described = lab_description(lab_dir(lab))
    if (name := described.get("up")) is None:
        return None
    found = read_layouts(lab, described)
    if name not in found:
        raise UsageError(f"{lab}/lab.yaml 的 up 是 {name!r}，deployments 里没有",
                         remedy=f"可选：{'、'.join(found) or '先写 deployments'}")  # fmt: skip
    return found[name]


@dataclass(frozen=True)
class Deployment:
    """How workers and their router are started.

    Attributes:
        workers: name (`prefill-0`) → recipe; the role is the name's first part.
        log: of the router.
        config: the lab.yaml.
    """

    name: str
    workers: dict[str, Recipe]
    config: Path
    log: Path
    port: int = 0

    @property
    def device(self) -> str:
        """`gpu` or `cpu`, the same for all workers."""
        return next(iter(self.workers.values())).device

    @property
    def model(self) -> Path:
        """Folder of the model that all workers serve."""
        return next(iter(self.workers.values())).model

    def options(self) -> dict[str, Any]:
        """worker → its configuration."""
        return {name: recipe.options() for name, recipe in self.workers.items()}

    def start(self, *, limit_s: float) -> "RunningDeployment":
        """Start workers and router, and wait until a request was answered.

        Raises:
            LabError: one did not start; nothing is left of any.
        """
        running = self.launch()
        try:
            return running.wait(limit_s)
        except BaseException:
            running.stop()
            raise

    def launch(self) -> "RunningDeployment":
        """Start all processes and return at once; `wait` for the answer.

        Raises:
            OSError: one could not be started; nothing is left of any.
        """
        running = RunningDeployment(replace(self, port=self.port or free_port()))
        try:
            running.launch()
        except BaseException:
            running.stop()
            raise
        return running


@dataclass
class RunningDeployment:
    """Workers and router; answers at `url` like one engine.

    Attributes:
        engines: worker's name → the engine.
        leader: the router's process.
        seconds: from the first process's start to the first token through the router.
        launched_s: when that start was, on the monotonic clock.
    """

    recipe: Deployment
    engines: dict[str, TemporaryEngine] = field(default_factory=dict)
    leader: ProcessId | None = None
    seconds: float = 0.0
    launched_s: float = 0.0

    @property
    def url(self) -> str:
        """The router's address."""
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

    def launch(self) -> None:
        """Start all processes and return at once: N workers are ready in the time of one."""
        self.launched_s = time.monotonic()
        for name, recipe in self.recipe.workers.items():
            self.engines[name] = temporary.launch(_with_handshake(recipe))
        self._launch_router()

    def restart_router(self) -> None:
        """Stop the router, which lets answers under way end, and start it anew on its port."""
        if self.leader:
            stop_session(self.leader, patience_s=DRAIN_S)
        self._launch_router()

    def _launch_router(self) -> None:
        process = start_in_own_session(
            self._router_command(), log=self.recipe.log,
            environment={**os.environ, "PYTHONUNBUFFERED": "1"}, folder=root(),
        )  # fmt: skip
        self.leader = ProcessId.of(process.pid)

    def wait(self, limit_s: float) -> "RunningDeployment":
        """Until every worker, and then the router, has completed a token.

        Raises:
            LabError: one ended, or it took longer than `limit_s`.
        """
        began = time.monotonic()
        for name, engine in list(self.engines.items()):
            left = limit_s - (time.monotonic() - began)
            self.engines[name] = temporary.awaited(engine, limit_s=max(left, 1.0))
        wait_until_answering(self.starting(), lambda phase, seconds: None, stall_s=60.0)
        self.seconds = time.monotonic() - self.launched_s
        return self

    def starting(self) -> Starting:
        """What there is to look at while it starts, and after it has ended."""
        log = self.recipe.log
        return Starting(self.url, self.log_text, self.exit_code, log, self.recipe.config)

    def exit_code(self) -> int | None:
        """Of the first process that has ended; None while all run."""
        leaders = [engine.leader for engine in self.engines.values()]
        return first_exit_code([*leaders, self.leader] if self.leader else leaders)

    def urls(self) -> dict[str, list[str]]:
        """role → the workers' addresses."""
        found: dict[str, list[str]] = {}
        for name, engine in self.engines.items():
            found.setdefault(name.partition("-")[0], []).append(engine.url)
        return found

    def startup(self) -> startup_log.StartupReport:
        """What the first worker's log says of its start."""
        return next(iter(self.engines.values())).startup()

    def log_text(self) -> str:
        """The logs of workers and router, one after another."""
        logs = [engine.log_text() for engine in self.engines.values()]
        return "\n".join([*logs, startup_log.read(self.recipe.log)])

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
                        remedy=f"看日志 {shown(self.recipe.log)}")  # fmt: skip

    def _router_command(self) -> list[str]:
        words = [sys.executable, "-m", "inferlab.engines.router", "--port", str(self.recipe.port)]
        for role, urls in self.urls().items():
            words += [word for url in urls for word in (_ROUTER_FLAGS[role], url)]
        return [*words, *(_ON_CPU if self.recipe.device == "cpu" else ())]


def deployment(
    layout: Layout,
    recipe_of: Callable[[str], Recipe],
    *,
    config: Path,
    log: Path,
    port: int = 0,
) -> Deployment:
    """A layout with each worker's recipe and place.

    Args:
        recipe_of: role → the recipe of its engine file.
        log: of the router; the workers' lie beside it.
    """
    workers = {}
    for role, places in layout.places.items():
        for number, place in enumerate(places):
            name = f"{role}-{number}"
            known = recipe_of(role)
            workers[name] = replace(
                known, name=name, log=worker_log(log, name),
                flags=known.flags | layout.flags,
                environment=known.environment
                | layout.variables(known.device)
                | _place(known.device, place),
            )  # fmt: skip
    return Deployment(layout.name, workers, config, log, port)


def _with_handshake(recipe: Recipe) -> Recipe:
    """With a port of its own at which NIXL's workers learn of each other's memory."""
    handshake = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
        # On stdout UCX's tables would stick in the libc's buffer.
        "UCX_LOG_FILE": "stderr",
        # Without a link between GPUs UCX does not read over CUDA IPC unless told; it takes TCP.
        "UCX_CUDA_IPC_ENABLE_GET_ZCOPY": "y",
    }
    return replace(recipe, environment=recipe.environment | handshake)


def _place(device: str, place: int) -> dict[str, str]:
    """The worker's GPU, or its core."""
    if device == "cpu":
        core = place % (os.cpu_count() or 1)
        return {"OMP_NUM_THREADS": "1", "OMP_PLACES": f"{{{core}}}", "OMP_PROC_BIND": "true"}
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return {"CUDA_VISIBLE_DEVICES": visible[place] if place < len(visible) else str(place)}
