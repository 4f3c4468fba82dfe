"""Several engines behind one address: the workers of a layout, and the router before them.

What measures takes a deployment for an engine.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inferlab.engines import startup_log, temporary
from inferlab.engines.layout import COLOCATED, Layout
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
from inferlab.errors import LabError
from inferlab.hardware.nixl_read import READ_OVER_CUDA_IPC
from inferlab.repository import root

_GPU = "CUDA_VISIBLE_DEVICES"
# A worker that shares two cores with others answers late, and must not be taken for frozen.
_ON_CPU = ("--health-interval", "5")
DRAIN_S = 60.0
FIRST_LIMIT_S = 900.0
# Given, vLLM takes that much for its KV cache, and does not measure what is used of the GPU.
_OWN_MEMORY = "kv-cache-memory-bytes"
_ROUTER_FLAGS = {"prefill": "--prefill", "decode": "--decode", COLOCATED: "--serve"}


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
        """Start all processes, as `RunningDeployment.launch` does; `wait` for the answer.

        Raises:
            OSError: one could not be started; nothing is left of any.
            LabError: one that others had to wait for did not start; likewise.
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
        """Start all processes and return at once: N workers are ready in the time of one.

        Only workers that measure the memory of one GPU wait for each other, `FIRST_LIMIT_S` each.

        Raises:
            LabError: one that others wait for did not start.
        """
        for first in self.launching():
            temporary.awaited(first, limit_s=FIRST_LIMIT_S)

    def launching(self) -> Iterator[TemporaryEngine]:
        """Start all processes; at each worker that this gives, wait until it answers.

        A starting vLLM takes what another allocates on its GPU meanwhile for its own use, so that
        nothing may be left for the KV cache.
        """
        self.launched_s = time.monotonic()
        answering: list[TemporaryEngine] = []
        for name, recipe in self.recipe.workers.items():
            for earlier in self.engines.values():
                if earlier not in answering and _waits_for(recipe, earlier.recipe):
                    yield earlier
                    answering.append(earlier)
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
        return Starting(self.url, self.log_texts, self.exit_code, log, self.recipe.config)

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
        return "\n".join(self.log_texts())

    def log_texts(self) -> list[str]:
        """The logs of workers and router."""
        logs = [engine.log_text() for engine in self.engines.values()]
        return [*logs, startup_log.read(self.recipe.log)]

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


def _waits_for(recipe: Recipe, earlier: Recipe) -> bool:
    """Whether an engine may be started only once an earlier one answers: they share a GPU, and it
    measures how much of it is used."""
    shared = recipe.environment.get(_GPU) == earlier.environment.get(_GPU)
    return recipe.device == "gpu" and shared and _OWN_MEMORY not in recipe.options()


def _with_handshake(recipe: Recipe) -> Recipe:
    """With a port of its own at which NIXL's workers learn of each other's memory."""
    handshake = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
        # On stdout UCX's tables would stick in the libc's buffer.
        "UCX_LOG_FILE": "stderr",
    }
    added = handshake | READ_OVER_CUDA_IPC
    return replace(recipe, environment=recipe.environment | added)


def _place(device: str, place: int) -> dict[str, str]:
    """The worker's GPU, or its core."""
    if device == "cpu":
        core = place % (os.cpu_count() or 1)
        return {"OMP_NUM_THREADS": "1", "OMP_PLACES": f"{{{core}}}", "OMP_PROC_BIND": "true"}
    visible = [each for each in os.environ.get(_GPU, "").split(",") if each]
    return {_GPU: visible[place] if place < len(visible) else str(place)}
