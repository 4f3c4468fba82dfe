"""A benchmark's figures: each metric of its runs under each condition, with its interval."""

from collections.abc import Iterable, Sequence
from typing import Any

from inferlab.hardware.timing import Series
from inferlab.records.runs import LatencyFigures, Run
from inferlab.records.schema import Figure

LATENCIES = ("ttft_ms", "itl_ms", "tpot_ms", "chunk_gap_ms", "e2e_ms")
PARTS = ("mean", "p50", "p90", "p95", "p99")
RATES = {
    "requests_per_s": "req/s",
    "output_tokens_per_s": "tok/s",
    "total_tokens_per_s": "tok/s",
}


def values_of(run: Run) -> dict[str, tuple[float, str]]:
    """All metrics of one run that have a value: name → value, unit.

    Names: `ttft_ms.p99` and the like for LATENCIES × PARTS, `send_delay_ms.p99` and `.max`,
    RATES, `goodput.requests_per_s`, `goodput.output_tokens_per_s`, `goodput.share`, `mbu`, `mfu`,
    `energy_j_per_output_token`, `power_w`.
    """
    found: dict[str, tuple[float, str]] = {}
    for name in LATENCIES:
        _add_latency(found, name, getattr(run.summary, name), PARTS)
    _add_latency(found, "send_delay_ms", run.summary.send_delay_ms, ("p99", "max"))
    if run.summary.ok:
        found |= {name: (getattr(run.summary, name), unit) for name, unit in RATES.items()}
    if run.goodput is not None:
        found["goodput.requests_per_s"] = (run.goodput.requests_per_s, "req/s")
        found["goodput.output_tokens_per_s"] = (run.goodput.output_tokens_per_s, "tok/s")
        found["goodput.share"] = (run.goodput.share, "")
    found |= {name: (run.limits[name], "") for name in ("mbu", "mfu") if name in run.limits}
    return found | _energy(run)


def figures_of(runs: Sequence[Run]) -> list[Figure]:
    """Figures over the repeats of each condition, in the order first measured.

    A run that ended early counts only where no whole run of its condition exists.
    """
    return [figure for labels, group in conditions(runs) for figure in _figures(labels, group)]


def conditions(runs: Iterable[Run]) -> list[tuple[dict[str, Any], list[Run]]]:
    """Runs by their labels; whole ones only, where there is one."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(run.labels.items())), []).append(run)
    return [
        (group[0].labels, [run for run in group if not run.partial] or group)
        for group in groups.values()
    ]


def _figures(labels: dict[str, Any], runs: Sequence[Run]) -> list[Figure]:
    values = [values_of(run) for run in runs]
    units = {name: unit for each in values for name, (_, unit) in each.items()}
    series = [
        Series(name, unit, [each[name][0] for each in values if name in each], labels)
        for name, unit in units.items()
    ]
    return [Figure.from_series(each) for each in series]


def _add_latency(
    found: dict[str, tuple[float, str]], name: str, latency: LatencyFigures | None,
    parts: Sequence[str],
) -> None:  # fmt: skip
    if latency is not None:
        found |= {f"{name}.{part}": (getattr(latency, part), "ms") for part in parts}


def _energy(run: Run) -> dict[str, tuple[float, str]]:
    seen = run.telemetry or {}
    found: dict[str, tuple[float, str]] = {}
    tokens = sum(run.requests.output_tokens) if run.requests else seen.get("output_tokens", 0)
    if seen.get("energy_j") and tokens:
        found["energy_j_per_output_token"] = (seen["energy_j"] / tokens, "J/tok")
    if seen.get("energy_power_w"):
        found["power_w"] = (seen["energy_power_w"], "W")
    return found
