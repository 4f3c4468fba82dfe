"""A lab's `load:` as a benchmark's plan: workload, arrivals, levels, SLO."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from inferlab.errors import UsageError
from inferlab.load.workloads import Lengths
from inferlab.measure.goodput import Slo
from inferlab.records.plan import Level, Plan, Workload

_LENGTHS = ("prompt", "output", "turns")
_WORKLOAD = {f.name for f in fields(Workload)} - {"file"}
_PLAN = {f.name for f in fields(Plan)} - {"workload"}
_KNOWN = _WORKLOAD | _PLAN | {"concurrency", "rates", "slo", "share", "keep_requests"}


@dataclass(frozen=True)
class Load:
    """What a `load:` says.

    Attributes:
        levels: rates or concurrencies, in the order written.
        share: of requests that must meet the SLO for a rate to count as held.
    """

    plan: Plan
    levels: tuple[Level, ...]
    slo: Slo | None = None
    share: float = 0.9
    keep_requests: bool = False


def parse_load(where: str, given: Mapping[str, Any]) -> Load:
    """Read a `load:`.

    Lengths are written as in `./lab bench`: 128, "64-256", "512~0.8". `requests` alone ends a run
    by number, `duration_s` by time.

    Raises:
        UsageError: a key or value is wrong; `where` names the place.
    """
    if unknown := set(given) - _KNOWN:
        raise UsageError(f"{where} 的 load 有不认识的键 {'、'.join(sorted(unknown))}",
                         remedy=f"可用：{'、'.join(sorted(_KNOWN))}")  # fmt: skip
    work = {name: given[name] for name in _WORKLOAD & set(given)}
    work |= {name: Lengths.parse(str(work[name])) for name in _LENGTHS if name in work}
    plan = {name: given[name] for name in _PLAN & set(given)}
    if plan.get("requests") and "duration_s" not in plan:
        plan["duration_s"] = 0.0
    return Load(
        Plan(Workload(**work), **plan), _levels(where, given), _slo(where, given.get("slo")),
        float(given.get("share", 0.9)), bool(given.get("keep_requests", False)),
    )  # fmt: skip


def _levels(where: str, given: Mapping[str, Any]) -> tuple[Level, ...]:
    rates, places = _list(given.get("rates")), _list(given.get("concurrency"))
    wrong = [each for each in (*rates, *places) if not isinstance(each, int | float) or each <= 0]
    if bool(rates) == bool(places) or wrong:
        raise UsageError(f"{where} 的 load 要写 rates 或 concurrency 之一，值为正",
                         remedy="例如 concurrency: [1, 8] 或 rates: [4, 8]")  # fmt: skip
    by_rate = [Level(rate_per_s=float(each)) for each in rates]
    return tuple(by_rate or [Level(concurrency=int(each)) for each in places])


def _slo(where: str, given: Mapping[str, float] | None) -> Slo | None:
    if not given:
        return None
    if unknown := set(given) - {f.name for f in fields(Slo)}:
        raise UsageError(f"{where} 的 slo 有不认识的键 {'、'.join(sorted(unknown))}",
                         remedy="例如 slo: {ttft_ms: 1000, tpot_ms: 50}")  # fmt: skip
    return Slo(**{name: float(value) for name, value in given.items()})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
