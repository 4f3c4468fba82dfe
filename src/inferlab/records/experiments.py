"""What `lab.yaml` says is to be measured: its `experiments`, for one kind of device, checked.

Two forms: a `module` that measures the hardware by itself, or a `measure` of one or two engines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from inferlab.engines.layout import Layout, read_layouts
from inferlab.errors import UsageError
from inferlab.records.load_plan import parse_load
from inferlab.repository import lab_description, lab_dir, root

DEVICES = ("cuda", "cpu")
ENGINES_NEEDED = {
    "bench": 1,
    "saturation": 1,
    "cold_starts": 1,
    "kv_capacity": 1,
    "decode_grid": 1,
    "static_batching": 1,
    "handover": 1,
    "pd_faults": 1,
    "kv_transfer_check": 1,
    "ab": 2,
    "goodput_ab": 2,
}
NEEDS_LOAD = ("bench", "saturation", "cold_starts", "ab", "goodput_ab")
ONE_LOAD = ("cold_starts", "ab")
_KEYS = {"id", "module", "model", "minutes", "devices", "engines", "measure", "load", "with",
         "repeats", "cuda", "cpu"}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """An entry of `lab.yaml`'s `experiments`, for one kind of device.

    Attributes:
        minutes: how long it takes at most, without the engine's start (with all of them for
            `cold_starts`); an experiment that no longer fits is left out.
        module: what measures without an engine; run as `python -m <module> --out FILE …`.
        model: for a module, the measured shape's file below the root; empty without one.
        engines: names of engine files or deployments; two take turns on the device.
        measure: a built-in measure, or a module of `inferlab.measure`.
        load: what is sent, for measures that benchmark.
        given: the entry's `with`: arguments of the measure.
        repeats: the entry's own number; None leaves it to the command.
    """

    id: str
    minutes: float
    module: str = ""
    model: str = ""
    devices: tuple[str, ...] = DEVICES
    engines: tuple[str, ...] = ()
    measure: str = ""
    load: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    repeats: int | None = None

    @property
    def starts_engines(self) -> bool:
        """Whether the measure starts its engines itself; `minutes` has the starts then."""
        return self.measure == "cold_starts"

    def command(self, python: Path, out: Path, repeats: int) -> list[str]:
        """How a module is run."""
        words = [str(python), "-m", self.module, "--out", str(out), "--repeats", str(repeats)]
        return [*words, "--config", str(root() / self.model)] if self.model else words

    def description(self, repeats: int) -> dict[str, Any]:
        """What makes two records of this experiment the same measurement, as plain JSON."""
        found = {"module": self.module, "model": self.model, "engines": list(self.engines),
                 "measure": self.measure, "load": self.load, "with": self.given}  # fmt: skip
        return {name: value for name, value in found.items() if value} | {"repeats": repeats}


@dataclass(frozen=True)
class LabPlan:
    """A lab as far as recording needs it.

    Attributes:
        recorded_model: device → folder below the root, or hub id.
        recorded_flags: of every engine, beyond its file, when it is started to be measured.
        layouts: deployment's name → its workers' roles and places.
        experiments: those that the device can run, quickest first.
    """

    name: str
    folder: Path
    device: str
    recorded_model: str
    experiments: list[Experiment]
    layouts: dict[str, Layout] = field(default_factory=dict)
    recorded_flags: dict[str, Any] = field(default_factory=dict)

    def engine_file(self, name: str) -> Path:
        """`engine/<name>.yaml` on a GPU, `engine/<name>-cpu.yaml` on a CPU."""
        suffix = "" if self.device == "cuda" else "-cpu"
        return self.folder / "engine" / f"{name}{suffix}.yaml"

    def gpus_of(self, experiment: Experiment) -> int:
        """How many GPUs its engines are spread over; 0 where a CPU runs them."""
        if self.device == "cpu":
            return 0
        return max((each.gpus for each in self._layouts_of(experiment)), default=1)

    def variables_of(self, experiment: Experiment) -> dict[str, dict[str, str]]:
        """deployment → variables that its workers get here, of those that have some."""
        found = {each.name: each.variables(self.device) for each in self._layouts_of(experiment)}
        return {name: variables for name, variables in found.items() if variables}

    def _layouts_of(self, experiment: Experiment) -> list[Layout]:
        return [self.layouts[name] for name in experiment.engines if name in self.layouts]


def experiments(lab: str, device: str) -> list[Experiment]:
    """The experiments of a lab that a device (`cuda` or `cpu`) can run, quickest first."""
    return read_plan(lab, device).experiments


def read_plan(
    lab: str, device: str, folder: Path | None = None, *, memory_bytes: float = inf
) -> LabPlan:
    """A lab's `lab.yaml`, with the overlays of one device, checked.

    Args:
        folder: of the lab, when it is not `code/<lab>`.
        memory_bytes: of one GPU; decides between the `recorded_flags` of a device that lists some.

    Raises:
        UsageError: there is no such lab, or an entry is wrong; the message names it.
    """
    folder = folder or lab_dir(lab)
    content = lab_description(folder)
    models = content.get("recorded_model") or {}
    found = [_experiment(lab, entry, device) for entry in content.get("experiments") or []]
    _unique(lab, [each.id for each in found])
    here = sorted((e for e in found if device in e.devices), key=lambda e: e.minutes)
    layouts = read_layouts(lab, content)
    given = (content.get("recorded_flags") or {}).get(device) or {}
    flags = _flags_for(f"{lab}/lab.yaml 的 recorded_flags.{device}", given, memory_bytes)
    plan = LabPlan(lab, folder, device, models.get(device, ""), here, layouts, flags)
    for each in here:
        _check_engines(plan, each)
    return plan


def _flags_for(where: str, given: Any, memory_bytes: float) -> dict[str, Any]:
    """The flags, or of a list the first entry whose `least_memory_gb` one GPU has."""
    if not isinstance(given, list):
        return dict(given)
    if not all(isinstance(each, dict) and "least_memory_gb" in each for each in given):
        raise UsageError(f"{where} 有一条没有写 least_memory_gb", remedy="每条都写，最后一条写 0")
    fitting = [each for each in given if each["least_memory_gb"] * 1e9 <= memory_bytes]
    chosen = fitting[0] if fitting else given[-1]
    return {name: value for name, value in chosen.items() if name != "least_memory_gb"}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mappings merged key by key; anything else is replaced."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _experiment(lab: str, entry: Any, device: str) -> Experiment:
    if not isinstance(entry, Mapping) or "id" not in entry:
        raise UsageError(f"{lab}/lab.yaml 的实验缺少 id：{entry!r}", remedy="每项都要有 id")
    where = f"{lab}/lab.yaml 的实验 {entry['id']}"
    if unknown := set(entry) - _KEYS:
        raise UsageError(f"{where} 有不认识的键 {'、'.join(sorted(unknown))}",
                         remedy=f"可用：{'、'.join(sorted(_KEYS))}")  # fmt: skip
    overlay = entry.get(device) or {}
    whole = {name: value for name, value in entry.items() if name not in DEVICES}
    whole = merged(whole, overlay)
    if not isinstance(whole.get("minutes"), int | float):
        raise UsageError(f"{where} 没有写 minutes", remedy="写出最多要几分钟，例如 minutes: 2")
    model = whole.get("model", "")
    found = Experiment(
        id=str(whole["id"]), minutes=float(whole["minutes"]), module=whole.get("module", ""),
        model=model.get(device, "") if isinstance(model, dict) else model,
        devices=tuple(whole.get("devices", DEVICES)), engines=tuple(whole.get("engines", ())),
        measure=whole.get("measure", ""), load=dict(whole.get("load") or {}),
        given=dict(whole.get("with") or {}), repeats=whole.get("repeats"),
    )  # fmt: skip
    _check_form(where, found)
    return found


def _check_form(where: str, found: Experiment) -> None:
    if bool(found.module) == bool(found.measure):
        raise UsageError(f"{where} 要写 module 或 measure 之一", remedy="两者不能都有或都没有")
    if unknown := set(found.devices) - set(DEVICES):
        raise UsageError(f"{where} 的 devices 有 {'、'.join(sorted(unknown))}", remedy="cuda、cpu")
    if found.module:
        return
    _check_measure(where, found)
    needed = ENGINES_NEEDED.get(found.measure, 1)
    if len(found.engines) != needed or len(set(found.engines)) != needed:
        raise UsageError(
            f"{where}：measure {found.measure} 需要 {needed} 个引擎，写了 {len(found.engines)} 个",
            remedy="engines: [名字]" if needed == 1 else "engines: [A, B]，两个不同的名字",
        )
    if bool(found.load) != (found.measure in NEEDS_LOAD):
        wanted = "load" if found.measure in NEEDS_LOAD else "with，而不是 load"
        raise UsageError(f"{where}：measure {found.measure} 需要 {wanted}", remedy="见其他实验")
    if found.load:
        _check_load(where, found)


def _check_load(where: str, found: Experiment) -> None:
    load = parse_load(where, found.load)
    if found.measure in ONE_LOAD and len(load.levels) != 1:
        raise UsageError(f"{where}：{found.measure} 只测一种负载，写了 {len(load.levels)} 种",
                         remedy="concurrency 或 rates 只写一个值")  # fmt: skip
    if found.measure == "goodput_ab" and not (load.slo and load.levels[0].rate_per_s):
        raise UsageError(f"{where}：goodput_ab 需要 slo 和 rates",
                         remedy="例如 rates: [16, 20]，slo: {ttft_ms: 1000}")  # fmt: skip


def _check_measure(where: str, found: Experiment) -> None:
    known = found.measure in ENGINES_NEEDED
    if not known and not (
        found.measure.isidentifier() and find_spec(f"inferlab.measure.{found.measure}")
    ):
        raise UsageError(
            f"{where}：没有名为 {found.measure!r} 的 measure",
            remedy=f"可用：{'、'.join(ENGINES_NEEDED)}，或 inferlab.measure 里的模块名",
        )


def _check_engines(plan: LabPlan, experiment: Experiment) -> None:
    roles = [role for name in experiment.engines for role in _roles(plan, name)]
    for role in roles:
        file = plan.engine_file(role)
        if not file.is_file():
            raise UsageError(
                f"{plan.name}/lab.yaml 的实验 {experiment.id}：没有引擎配置 engine/{file.name}",
                remedy="补上这个文件，或用 devices 限定实验的设备",
            )
    if experiment.engines and not plan.recorded_model:
        raise UsageError(f"{plan.name}/lab.yaml 没有写 recorded_model 的 {plan.device}",
                         remedy="例如 recorded_model: {cuda: Qwen/Qwen3-8B, "
                         "cpu: models/lab-python-8m}")  # fmt: skip


def _roles(plan: LabPlan, engine: str) -> list[str]:
    """The engine files behind a name: its own, or those of a deployment's roles."""
    return list(plan.layouts[engine].places) if engine in plan.layouts else [engine]


def _unique(lab: str, ids: list[str]) -> None:
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise UsageError(f"{lab}/lab.yaml 的实验 id 重复：{'、'.join(twice)}", remedy="各取一个名")
