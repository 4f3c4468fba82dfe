"""From `bench`'s options to an endpoint, a plan and levels; each wrong value is one clear line."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from inferlab.engines import session
from inferlab.errors import UsageError
from inferlab.load.endpoint import Api, Endpoint
from inferlab.load.workloads import Lengths
from inferlab.records.plan import Arrival, Level, Plan, Workload
from inferlab.records.served_by import is_local, only_model

DEFAULT_RATE = "2"
DEFAULT_DURATION_S = 30.0


def endpoint_of(url: str, model: str, api_key: str, api: str) -> Endpoint:
    """The server to measure: this clone's running lab when no address is given.

    Raises:
        UsageError: the address or the interface is not understood.
    """
    if api not in get_args(Api):
        raise UsageError(f"--api {api!r} 无效", remedy=f"可选：{'、'.join(get_args(Api))}")
    found = Endpoint(url or session.api_url(), model or "lab", api, api_key)  # type: ignore[arg-type]
    _ = found.address
    return found if model else replace(found, model=only_model(found))


def endpoint_from(text: str, api: str) -> Endpoint:
    """Reads a URL or `url=…,model=…,key=…,api=…`.

    Raises:
        UsageError: a part is not understood.
    """
    if not text.startswith(("url=", "model=", "key=", "api=")):
        return endpoint_of(text, "", "", api)
    parts = _pairs(text)
    if unknown := parts.keys() - {"url", "model", "key", "api"}:
        raise UsageError(f"看不懂 {'、'.join(sorted(unknown))}", remedy="写成 url=…,model=…,key=…")
    model, key = parts.get("model", ""), parts.get("key", "")
    return endpoint_of(parts.get("url", ""), model, key, parts.get("api", api))


def levels_of(rate: str, concurrency: str, *, trace: bool) -> tuple[Level, ...]:
    """The levels of load: a trace's own, those of `--concurrency`, or those of `--rate`.

    Raises:
        UsageError: both or a value that is not a positive number.
    """
    if rate and concurrency:
        raise UsageError(
            "--rate 与 --concurrency 不能同时给", remedy="开环用 --rate，闭环用 --concurrency"
        )
    if trace and not rate and not concurrency:
        return (Level(),)
    if concurrency:
        numbers = _numbers("--concurrency", concurrency)
        if any(each != int(each) for each in numbers):
            raise UsageError(f"--concurrency {concurrency!r} 要整数", remedy="例如 1,4,16")
        return tuple(Level(concurrency=int(each)) for each in numbers)
    return tuple(Level(rate_per_s=each) for each in _numbers("--rate", rate or DEFAULT_RATE))


def plan_of(options: Mapping[str, Any]) -> Plan:
    """The plan that the options (by parameter name) describe.

    Raises:
        UsageError: a value is not understood, or two contradict each other.
    """
    file = options["trace"] or options["dataset"]
    if options["trace"] and options["dataset"]:
        raise UsageError("--trace 与 --dataset 只能给一个", remedy="--trace 同时给出请求和时刻")
    if options["arrival"] not in get_args(Arrival):
        raise UsageError(f"--arrival {options['arrival']!r} 无效",
                         remedy=f"可选：{'、'.join(get_args(Arrival))}")  # fmt: skip
    if not options["speed"] > 0:
        raise UsageError(f"--speed {options['speed']:g} 无效", remedy="必须大于 0")
    return Plan(
        workload=_workload(options, file), arrival=options["arrival"], cv=options["cv"],
        duration_s=_duration(options), requests=options["requests"], speed=options["speed"],
        ramp_s=_ramp(options),
    )  # fmt: skip


def _ramp(options: Mapping[str, Any]) -> float:
    ramp_s, duration_s = options["ramp"], _duration(options)
    if ramp_s and ramp_s >= 0.9 * duration_s:
        raise UsageError(f"--ramp {ramp_s:g} 之后没有剩下可计的时间",
                         remedy="加长 --duration；按 --requests 发送时没有预热")  # fmt: skip
    return ramp_s


def recorded_command(arguments: list[str] | None = None) -> str:
    """This command for the record: keys and remote addresses hidden, paths cut to file names."""
    words = sys.argv[1:] if arguments is None else arguments
    shown: list[str] = []
    previous = ""
    for word in words:
        hidden = previous in ("--api-key", "--url") or word.startswith(("--api-key=", "--url="))
        shown.append(_hidden(previous, word) if hidden else _public(word))
        previous = word
    return shlex.join(["./lab", *shown])


def _hidden(previous: str, word: str) -> str:
    option, mark, value = word.partition("=") if word.startswith("--") else (previous, "", word)
    shown = "…" if option == "--api-key" else _public_url(value)
    return f"{option}={shown}" if mark else shown


def _public(word: str) -> str:
    if word.startswith(("http://", "https://")):
        return _public_url(word)
    if word.startswith(("url=", "model=", "key=", "api=")):
        shown = {"key": lambda _: "…", "url": _public_url}
        pairs = _pairs(word).items()
        return ",".join(f"{name}={shown.get(name, _bare)(value)}" for name, value in pairs)
    option, mark, value = word.partition("=")
    return f"{option}={_bare(value)}" if mark else _bare(word)


def _pairs(text: str) -> dict[str, str]:
    cut = (part.partition("=") for part in text.split(","))
    return {name: value for name, _, value in cut}


def _public_url(url: str) -> str:
    try:
        return url if is_local(Endpoint(url)) else "https://…"
    except UsageError:
        return url


def _bare(word: str) -> str:
    return Path(word).name if word.startswith("/") else word


def _duration(options: Mapping[str, Any]) -> float:
    if options["duration"] or options["requests"]:
        return float(options["duration"])
    return 0.0 if options["trace"] else DEFAULT_DURATION_S


def _workload(options: Mapping[str, Any], file: Path | None) -> Workload:
    kind = "file" if file else options["workload"]
    if kind not in ("random", "prefix", "chat", "file"):
        raise UsageError(f"--workload {kind!r} 无效", remedy="可选：random、prefix、chat")
    shared = bool(options["prefix_len"] or options["hit_ratio"])
    if shared and kind == "random":
        kind = "prefix"
    return Workload(
        kind=kind, prompt=Lengths.parse(options["input_len"]),
        output=Lengths.parse(options["output_len"]), prefix_tokens=options["prefix_len"],
        hit_ratio=options["hit_ratio"], prefix_groups=options["prefix_groups"],
        turns=Lengths.parse(options["turns"]), think_s=options["think"], file=file,
        vocabulary=options["vocabulary"],
    )  # fmt: skip


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each < 1e6 for each in found):
        raise UsageError(f"{option} {text!r} 不是正数", remedy=f"例如 {option} 4 或 {option} 1,2,4")
    return found
