"""A lab's experiments in order: grouped by their engines, bounded in time, kept at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from inferlab.engines.deployment import Deployment, deployment
from inferlab.engines.environments import ensure, python_of
from inferlab.engines.native import program_of
from inferlab.engines.session import log_path
from inferlab.engines.shape_model import RecordedModel, recorded_model
from inferlab.engines.temporary import Recipe
from inferlab.engines.turns import START_LIMIT_S, Startable, Turns
from inferlab.errors import LabError
from inferlab.hardware.host import HostInfo
from inferlab.load.runner import INTERRUPTED
from inferlab.records import module_experiments
from inferlab.records.engine_experiments import measure
from inferlab.records.experiments import Experiment, LabPlan
from inferlab.records.jobs import Job
from inferlab.records.provenance import device_of
from inferlab.records.schema import Record
from inferlab.records.shelf import Shelf
from inferlab.records.telemetry import visible_gpus
from inferlab.records.time_limits import Limits, Watchdog, terminated_like_interrupted
from inferlab.settings import Settings

Say = Callable[[str], None]
FIRST_START_S = {"cuda": 200.0, "cpu": 60.0}
LATER_START_S = {"cuda": 120.0, "cpu": 60.0}
REPEATS = 5
MEASURE_REPEATS = {"decode_grid": 3}
TIMED_OUT = "超过时限，被中断"


@dataclass
class Campaign:
    """One call of `./lab record`.

    Attributes:
        written, skipped, failed: what became of the experiments.
        start_s: how long the engines now up took to start, the slowest; 0 before the first.
        turns: the engines that are up; the next group keeps those that it has too.
    """

    plan: LabPlan
    host: HostInfo
    limits: Limits
    repeats: int | None
    folder: Path | None
    command: str
    model: str
    again: bool
    say: Say
    written: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    start_s: float = 0.0
    turns: Turns = field(default_factory=lambda: Turns({}, "alone"))

    def run(self, wanted: list[Experiment]) -> list[Path]:
        """Measure group after group.

        Raises:
            LabError: nothing was written though something was to be.
        """
        with terminated_like_interrupted():
            try:
                left = groups([each for each in wanted if self._enough_gpus(each)])
                while left:
                    group = left.pop(0)
                    if group[0].engines:
                        self._with_engines(group, {n for each in left for n in each[0].engines})
                    else:
                        self._without_engines(group[0])
            except KeyboardInterrupt:
                self.say("已中断，测到的都已写入")
                self.failed.append("中断")
            finally:
                self.turns.close()
        if not self.written and (self.failed or not self.skipped):
            raise LabError(
                f"{self.plan.name} 没有写出任何记录（失败：{'、'.join(self.failed) or '无'}）",
                remedy="看上面的输出：跳过的写明了缺什么；时间不够可加大 --minutes",
            )
        return self.written

    def repeats_of(self, experiment: Experiment) -> int:
        """The command's, else the experiment's own, else the measure's, else the default."""
        if experiment.measure == "kv_capacity":
            return 1  # an engine that was started once reports the same at each look
        usual = MEASURE_REPEATS.get(experiment.measure, REPEATS)
        return self.repeats or experiment.repeats or usual

    @cached_property
    def shelf(self) -> Shelf:
        """Where the records lie."""
        return Shelf(device_of(self.host), self.plan.name, self.folder)

    @cached_property
    def recorded(self) -> RecordedModel:
        """The model that the engines load."""
        return recorded_model(self.model, Settings.load().model, self.plan.recorded_model)

    def startable(self, name: str) -> Startable:
        """How one of the lab's engines, or deployments, is started here."""
        if name not in self.plan.layouts:
            return self.recipe(name)
        return deployment(
            self.plan.layouts[name], self.recipe, config=self.plan.folder / "lab.yaml",
            log=self._log(name),
        )  # fmt: skip

    def recipe(self, name: str) -> Recipe:
        """How one of the lab's engines is started here."""
        config = self.plan.engine_file(name)
        device = "gpu" if self.plan.device == "cuda" else "cpu"
        return Recipe(
            name=name,
            device=device,
            python=python_of(program_of(config).environment(device)),
            config=config,
            model=self.recorded.folder,
            log=self._log(name),
            flags=self.recorded.flags | self.plan.recorded_flags,
        )

    def _log(self, name: str) -> Path:
        return log_path(self.plan.name, f"record-{name}")

    def _without_engines(self, experiment: Experiment) -> None:
        repeats = self.repeats_of(experiment)
        wanted = experiment.description(repeats)
        if self._recorded(experiment, wanted) or not self._fits(experiment, 0.0):
            return

        self.turns.close()

        def record() -> Record:
            found = module_experiments.measure(
                self.plan.name, experiment, self.host, repeats, self._command(experiment)
            )
            known = found.parameters | {"description": wanted}
            return found.model_copy(update={"parameters": known})

        self._attempt(experiment, record)

    def _with_engines(self, group: list[Experiment], later: set[str]) -> None:
        turns = Turns.of([self.startable(name) for name in group[0].engines], self.say)
        left = [each for each in group if not self._recorded(each, self._described(each, turns))]
        if not left:
            return
        turns.take_over(self.turns, later)
        self.turns = turns
        while left:
            each = left.pop(0)
            if not self._fits(each, self._starts_s(each, turns)):
                continue
            if not self._started(self._job(each, turns)):
                self.failed += [one.id for one in left]
                return
            self._attempt(each, lambda each=each: measure(self._job(each, turns)))
            self._say_if_dead(turns)

    def _started(self, job: Job) -> bool:
        try:
            for environment in _environments(job.turns.recipes.values()):
                ensure(environment, Settings.load(), self.say)
            job.turns.start_limit_s = min(START_LIMIT_S, max(60.0, self.limits.left_s))
            if not job.experiment.starts_engines:
                job.turns.start_all()
        except LabError as error:
            self.say(f"{job.experiment.id} 失败：{error}")
            self.failed.append(job.experiment.id)
            return False
        self.start_s = max((e.seconds for e in job.turns.started.values()), default=self.start_s)
        return True

    def _job(self, experiment: Experiment, turns: Turns) -> Job:
        return Job(
            lab=self.plan.name, experiment=experiment, turns=turns, model=self.recorded,
            repeats=self.repeats_of(experiment), command=self._command(experiment),
            description=self._described(experiment, turns),
            deadline_s=self._deadline_s(experiment), keep=self._keep_unfinished,
        )  # fmt: skip

    def _deadline_s(self, experiment: Experiment) -> float:
        """Where two engines share a GPU and cannot sleep, they are started again and again."""
        shared = len(experiment.engines) > 1 and self.plan.device == "cuda"
        return self.limits.deadline_s(experiment.minutes, 4 * LATER_START_S["cuda"] * shared)

    def _command(self, experiment: Experiment) -> str:
        return self.command or f"./lab record {self.plan.name} --only {experiment.id}"

    def _described(self, experiment: Experiment, turns: Turns) -> dict[str, Any]:
        variables = self.plan.variables_of(experiment)
        found = experiment.description(self.repeats_of(experiment)) | {
            "model": self.recorded.name,
            "weights": self.recorded.weights,
            "configs": {name: recipe.options() for name, recipe in turns.recipes.items()},
        }
        return found | ({"environment": variables} if variables else {})

    def _attempt(self, experiment: Experiment, record: Callable[[], Record]) -> None:
        """Measure and write; a failure is said, and Ctrl-C goes on up after writing."""
        self.say(f"测量 {experiment.id}（约 {experiment.minutes:g} 分钟以内）…")
        if left := self.shelf.unfinished(experiment):
            self.say(f"上次没有测完，那时测到的在 {left}，这次会覆盖")
        watchdog = Watchdog(self._deadline_s(experiment))
        try:
            with watchdog:
                found = record()
        except KeyboardInterrupt:
            if not watchdog.fired:
                raise
            self._fail(experiment, TIMED_OUT)
            return
        except Exception as error:
            kind = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
            self._fail(experiment, f"{kind}{error}")
            return
        interrupted = found.partial == INTERRUPTED
        if interrupted and watchdog.fired:
            found = found.model_copy(update={"partial": TIMED_OUT})
        self._write(found)
        if interrupted and not watchdog.fired:
            raise KeyboardInterrupt

    def _write(self, record: Record) -> None:
        path, problem = self.shelf.put(record)
        self.written.append(path)
        told = f"（不完整：{record.partial}）" if record.partial else ""
        self.say(f"已写入 {path}{told}{f'（{problem}）' if problem else ''}")

    def _keep_unfinished(self, record: Record) -> None:
        try:
            self.shelf.keep_unfinished(record)
        except LabError as error:
            self.say(f"  {error}")

    def _fail(self, experiment: Experiment, why: str) -> None:
        self.say(f"{experiment.id} 失败：{why}")
        if half := self.shelf.unfinished(experiment):
            self.say(f"  测到的在 {half}")
        self.failed.append(experiment.id)

    def _say_if_dead(self, turns: Turns) -> None:
        for engine in turns.started.values():
            if not engine.alive:
                self.say(str(engine.ended()))

    def _enough_gpus(self, experiment: Experiment) -> bool:
        needed, there = self.plan.gpus_of(experiment), len(visible_gpus(self.host))
        if needed > there:
            self.say(f"跳过 {experiment.id}：要 {needed} 块 GPU，这里有 {there} 块")
        return needed <= there

    def _fits(self, experiment: Experiment, starts_s: float) -> bool:
        needed_s = experiment.minutes * 60 + starts_s
        if needed_s <= self.limits.left_s:
            return True
        self.say(
            f"跳过 {experiment.id}：约需 {needed_s / 60:.1f} 分钟（含启动引擎），"
            f"只剩 {max(self.limits.left_s, 0) / 60:.1f} 分钟"
        )
        return False

    def _starts_s(self, experiment: Experiment, turns: Turns) -> float:
        """What starting the engines that do not run yet will take, before the measuring."""
        if experiment.starts_engines:
            return 0.0
        up = {name for name, engine in turns.started.items() if engine.alive}
        missing = len(turns.recipes.keys() - up)
        if not missing:
            return 0.0
        device = self.plan.device
        later = self.start_s * 1.1 or LATER_START_S[device]
        first = self.start_s * 1.1 or FIRST_START_S[device]
        return first + (missing - 1) * later

    def _recorded(self, experiment: Experiment, wanted: dict[str, Any]) -> bool:
        """Whether a whole record of this description lies in the target folder; says so."""
        if self.again:
            return False
        if not self.shelf.has_whole(experiment, wanted):
            return False
        place = self.shelf.place(experiment)
        self.say(f"跳过 {experiment.id}：已有同样设置的记录 {place}（重测：--again）")
        self.skipped.append(experiment.id)
        return True


def groups(wanted: list[Experiment]) -> list[list[Experiment]]:
    """Experiments that share their engines together; groups and members quickest first."""
    found: dict[tuple[str, ...], list[Experiment]] = {}
    for each in sorted(wanted, key=lambda e: e.minutes):
        key = tuple(sorted(each.engines)) if each.engines else ("", each.id)
        found.setdefault(key, []).append(each)
    return list(found.values())


def _environments(startables: Iterable[Startable]) -> list[str]:
    """The engine environments that they run in, each once."""
    recipes = [
        recipe
        for each in startables
        for recipe in (each.workers.values() if isinstance(each, Deployment) else [each])
    ]
    return sorted({each.program.environment(each.device) for each in recipes})
