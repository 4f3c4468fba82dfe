"""What a lab says of several engines behind one address: the role of each, and its place.

A lab's `deployments:` name roles and places: `pd: {prefill: [0], decode: [1]}`. A role is an engine
file, a place a GPU, without GPUs a core.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferlab.errors import UsageError
from inferlab.repository import lab_description, lab_dir

HANDOVER = frozenset({"prefill", "decode"})
COLOCATED = "colocated"
_BESIDE_ROLES = ("flags", "environment", "compose")


@dataclass(frozen=True)
class Layout:
    """An entry of `deployments:`.

    Attributes:
        places: role → GPU (or core) of each worker with it.
        flags: of every worker, beyond its engine file.
        environment: device (`cuda` or `cpu`) → variables that every worker gets there.
        compose: file that makes this of the lab's `docker-compose.yml`; empty where that is it.
    """

    name: str
    places: dict[str, tuple[int, ...]]
    flags: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    compose: str = ""

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
        return 1 + max(self._all_places)

    @property
    def workers_on_one(self) -> int:
        """How many share the fullest GPU (or core)."""
        return max(map(self._all_places.count, self._all_places))

    @property
    def _all_places(self) -> list[int]:
        return [place for each in self.places.values() for place in each]


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
        found[name] = Layout(name, places, flags, variables, entry.get("compose", ""))
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


def layouts_to_start(lab: str) -> tuple[Layout, ...]:
    """What `./lab up` may start of a lab that has deployments (its `up:`), the best first.

    Raises:
        UsageError: `up` names one that is not there.
    """
    described = lab_description(lab_dir(lab))
    found = read_layouts(lab, described)
    if (wanted := described.get("up")) is None:
        return ()
    names = wanted if isinstance(wanted, list) else [wanted]
    for name in names:
        if name not in list(found):
            raise UsageError(f"{lab}/lab.yaml 的 up 写了 {name!r}，deployments 里没有",
                             remedy=f"可选：{'、'.join(found) or '先写 deployments'}")  # fmt: skip
    return tuple(found[name] for name in names)
