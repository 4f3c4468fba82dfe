"""Several engines on one device: who has it now, and how it changes hands.

On a CPU all simply stay up (`resident`), and so do deployments: NIXL has registered the memory of
the KV cache, which must not go away, so the lab gives each so little that all fit. On a GPU other
engines take most of the memory, so they `sleep` in turn (vLLM's sleep mode, level 1: weights go to
host memory, the KV cache is dropped; vllm/entrypoints/serve/dev/sleep). Where that fails, or one of
them is not vLLM, they are stopped and started again (`restart`): measurements then go in blocks. A
single engine has the device for itself (`alone`).

On GPUs those that stay up are started all at once: each is ready after one start's time, not two.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from inferlab.engines import health
from inferlab.engines.deployment import Deployment, RunningDeployment
from inferlab.engines.native import VLLM
from inferlab.engines.ports import free_port
from inferlab.engines.startup import shown
from inferlab.engines.temporary import Recipe, TemporaryEngine
from inferlab.errors import LabError

Mode = Literal["alone", "resident", "sleep", "restart"]
Startable = Recipe | Deployment
Engine = TemporaryEngine | RunningDeployment
SLEEP_LIMIT_S = 120.0
START_LIMIT_S = 900.0
WARM_UP_TOKENS = 8


@dataclass
class Turns:
    """Engines that share a device; the first turn of each starts it.

    Attributes:
        recipes: one an engine, each with a port of its own.
        mode: how the device changes hands; `sleep` may become `restart` when it fails.
        say: gets one line a start and a failed sleep.
        started: engines that were started and not stopped, asleep or not.
        starts: what the last start of each came to: `seconds`, and the log's own figures.
        launched: engines whose processes run and that have not answered yet.
        active: the engine that has the device.
        start_limit_s: no start may take longer.
    """

    recipes: dict[str, Startable]
    mode: Mode
    say: Callable[[str], None] = print
    started: dict[str, Engine] = field(default_factory=dict)
    starts: dict[str, dict[str, Any]] = field(default_factory=dict)
    launched: dict[str, Engine] = field(default_factory=dict)
    active: str = ""
    start_limit_s: float = START_LIMIT_S

    @classmethod
    def of(cls, recipes: Sequence[Startable], say: Callable[[str], None]) -> "Turns":
        """Prepare engines; none is started yet. On a GPU two of vLLM are given sleep mode."""
        single = [each for each in recipes if isinstance(each, Recipe)]
        mode = _mode(recipes, single)
        ready = [with_sleep_mode(each) for each in single] if mode == "sleep" else recipes
        return cls({each.name: replace(each, port=free_port()) for each in ready}, mode, say)

    @property
    def interleaved(self) -> bool:
        """Whether engines may take turns after each run; else all runs of one come first."""
        return self.mode != "restart"

    def take(self, name: str) -> Engine:
        """Give the device to one engine, starting or waking it; it has answered when this returns.

        Raises:
            LabError: it did not start, or is gone.
        """
        engine = self.started.get(name)
        if engine and name == self.active and engine.alive:
            return engine
        self._clear_the_way(name)
        engine = self.started.get(name)
        if engine is None or not engine.alive:
            engine = self._start_beside(name)
        elif self.mode == "sleep":
            engine = self._wake(engine)
        self.active = name
        return engine

    def start_all(self) -> None:
        """Start every engine, or the first alone where the next one's start would end it.

        Whoever measures calls this before, so that its own time counts measuring alone.

        Raises:
            LabError: one did not start.
        """
        names = list(self.recipes)
        if self.mode == "resident" and all(e.device == "gpu" for e in self.recipes.values()):
            for name in names:
                known = self.started.get(name)
                if known is None or not known.alive:
                    self._launch(name)
        for name in names[:1] if self.mode == "restart" else names:
            self.take(name)

    def restart(self, name: str, environment: Mapping[str, str]) -> Engine:
        """Stop an engine if it runs, and start it with further variables; it has the device then.

        Its next start is without them.

        Raises:
            LabError: it did not start, or is a deployment, not one engine.
        """
        usual = self.recipes[name]
        if isinstance(usual, Deployment):
            raise LabError(f"{name} 是部署，不能带别的变量重启", remedy="engines 写单个引擎的配置")
        self.stop(name)
        self.recipes[name] = replace(usual, environment={**usual.environment, **environment})
        try:
            return self.take(name)
        finally:
            self.recipes[name] = usual

    def take_over(self, before: "Turns", later: Collection[str] = ()) -> None:
        """Keep the running engines of `before` that this has too, asleep or not; stop the rest.

        Args:
            later: deployments that will be asked for after this; they stay up, idle.
        """
        for name, engine in list(before.started.items()):
            mine = self.recipes.get(name)
            if mine and engine.alive and replace(mine, port=engine.recipe.port) == engine.recipe:
                self.recipes[name] = engine.recipe
                self.active = name if before.active == name else self.active
            elif mine or name not in later or not isinstance(engine, RunningDeployment):
                continue
            self.started[name] = before.started.pop(name)
            self.starts[name] = before.starts[name]
        if self.mode == "alone" and self.started.keys() - self.recipes.keys():
            self.mode = "resident"
        before.close()

    def stop(self, name: str) -> None:
        """End an engine, whatever state it is in, or do nothing if there is none."""
        for engine in (self.launched.pop(name, None), self.started.pop(name, None)):
            if engine is not None:
                engine.stop()
        if self.active == name:
            self.active = ""

    def close(self) -> None:
        """Stop all engines, whatever state they are in."""
        for name in [*self.launched, *self.started]:
            self.stop(name)
        self.active = ""

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clear_the_way(self, name: str) -> None:
        others = [each for each in self.started if each != name]
        if self.mode == "sleep":
            try:
                for each in others:
                    self._sleep(self.started[each])
            except (OSError, ValueError, KeyError, LabError) as error:
                self.say(f"引擎不能休眠（{error}），改为停止再启动，逐块测量")
                self.mode = "restart"
        if self.mode == "restart":
            for each in others:
                self.stop(each)

    def _sleep(self, engine: Engine) -> None:
        if not engine.alive:
            self.stop(engine.recipe.name)
            return
        if not health.is_sleeping(engine.url):
            health.post(f"{engine.url}/sleep?level=1", timeout_s=SLEEP_LIMIT_S)
            _until_sleeping(engine, True)

    def _wake(self, engine: Engine) -> Engine:
        try:
            if health.is_sleeping(engine.url):
                health.post(f"{engine.url}/wake_up", timeout_s=SLEEP_LIMIT_S)
                _until_sleeping(engine, False)
            health.complete(engine.url, health.PROMPT, max_tokens=WARM_UP_TOKENS)
        except (OSError, ValueError, KeyError, LabError) as error:
            self.say(f"引擎 {engine.recipe.name} 没有醒来（{error}），改为停止再启动，逐块测量")
            self.mode = "restart"
            self.close()
            return self._start(engine.recipe.name)
        return engine

    def _start_beside(self, name: str) -> Engine:
        """Start an engine; where sleepers leave it too little memory, they are stopped."""
        try:
            return self._start(name)
        except LabError as error:
            if self.mode != "sleep" or not self.started:
                raise
            self.say(f"引擎 {name} 在休眠的引擎旁没有启动（{error.message}），改为停止再启动")
            self.mode = "restart"
            self.close()
            return self._start(name)

    def _launch(self, name: str) -> None:
        recipe = self.recipes[name]
        self.stop(name)
        self.say(f"启动引擎 {name}（{recipe.config.name}，日志 {shown(recipe.log)}）…")
        self.launched[name] = recipe.launch()

    def _start(self, name: str) -> Engine:
        if name not in self.launched:
            self._launch(name)
        try:
            engine = self.launched[name].wait(self.start_limit_s)
        except BaseException:
            self.stop(name)
            raise
        del self.launched[name]
        self.started[name] = engine
        found = {key: value for key, value in asdict(engine.startup()).items() if value is not None}
        self.starts[name] = {"seconds": round(engine.seconds, 1)} | found
        self.say(f"引擎 {name} 就绪，用了 {engine.seconds:.0f} s")
        return engine


def _mode(recipes: Sequence[Startable], single: Sequence[Recipe]) -> Mode:
    if len(recipes) == 1:
        return "alone"
    if len(single) < len(recipes) or single[0].device == "cpu":
        return "resident"
    return "sleep" if all(each.program == VLLM for each in single) else "restart"


def with_sleep_mode(recipe: Recipe) -> Recipe:
    """The recipe with what sleeping needs; its routes exist in development mode alone."""
    return replace(
        recipe,
        flags=recipe.flags | {"enable-sleep-mode": True},
        environment=recipe.environment | {"VLLM_SERVER_DEV_MODE": "1"},
    )


def _until_sleeping(engine: Engine, wanted: bool) -> None:
    deadline = time.monotonic() + SLEEP_LIMIT_S
    while health.is_sleeping(engine.url) != wanted:
        if time.monotonic() > deadline:
            state = "休眠" if wanted else "醒来"
            raise LabError(f"引擎 {engine.recipe.name} 在 {SLEEP_LIMIT_S:.0f} s 内没有{state}")
        time.sleep(0.2)
