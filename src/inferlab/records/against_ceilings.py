"""MBU and MFU of a run against the ceilings measured on the same device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferlab.arithmetic.roofline import decode, prefill
from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.engines.served import ServedModel
from inferlab.errors import LabError
from inferlab.load.endpoint import Endpoint
from inferlab.load.samples import RequestSample
from inferlab.measure import limits
from inferlab.measure.summary import Summary
from inferlab.measure.window import Window
from inferlab.records import store
from inferlab.records.rooflines import measured_ceilings
from inferlab.records.served_by import is_local, source_of
from inferlab.repository import root, state_dir


@dataclass(frozen=True)
class Limits:
    """What a run on this device is held against; `source` names the ceilings' record."""

    shape: ModelShape
    ceilings: Ceilings
    source: str
    devices: int = 1


def limits_of(
    endpoint: Endpoint, options: Mapping[str, Any], device: str, devices: int = 1
) -> Limits | str:
    """The limits of an engine on this machine, or why there are none, for the reader.

    Args:
        options: the engine's configuration, as far as it is known.
    """
    if not is_local(endpoint):
        return "服务不在本机，不知道它的硬件上限"
    try:
        shape = ServedModel(endpoint.model, source_of(endpoint), 0).shape(options)
    except LabError as error:
        return error.message
    found = ceilings_record(device, shape.dtype)
    if found is None:
        return f"没有 {device} 的 ceilings 记录（测量：./lab record chapter03 --only ceilings）"
    return Limits(shape, *found, devices=devices)


def ceilings_record(device: str, dtype: str) -> tuple[Ceilings, str] | None:
    """The newest measured ceilings of a device for a dtype, under `.lab/records/` or `results/`."""
    places = (state_dir() / "records", root() / "results")
    paths = [p for place in places for p in (place / store.slug(device)).glob("*/ceilings.json")]
    records = []
    for path in paths:
        try:
            record = store.load(path)
            records.append((record.created, measured_ceilings(record, dtype), path))
        except (LabError, ValueError):
            continue
    if not records:
        return None
    _, ceilings, path = max(records, key=lambda each: each[0])
    return ceilings, str(path.relative_to(root()))


def shares(
    known: Limits, samples: Sequence[RequestSample], window: Window, summary: Summary
) -> dict[str, float]:
    """`mbu` and `mfu` of one run, with what they were computed from; empty without tokens.

    MBU: bytes of one decode step at the run's mean occupancy, per inter-token latency. Prefill that
    shares the steps is not counted, so a prefill-heavy run shows less. MFU: FLOPs of all tokens
    computed (prompt tokens from a cache left out), per second of the window.
    """
    ok = [sample for sample in samples if sample.ok]
    seen = limits.occupancy(ok, window)
    if not summary.ok or not summary.itl_ms or not summary.itl_ms.mean or not seen.sequences:
        return {}
    step = decode(known.shape, max(1, round(seen.sequences)), round(seen.context_tokens)).total
    one = decode(known.shape, 1, round(seen.context_tokens)).total
    prompt, cached = summary.prompt_tokens // summary.ok, summary.cached_tokens // summary.ok
    first = prefill(known.shape, 1, max(1, prompt), min(cached, max(0, prompt - 1))).total
    flops_per_s = one.flops * summary.output_tokens_per_s + first.flops * summary.requests_per_s
    peak = known.ceilings
    itl_s = summary.itl_ms.mean / 1e3
    return {
        "mbu": limits.mbu(step.bytes, itl_s, peak.bytes_per_s, known.devices).fraction,
        "mfu": flops_per_s / (peak.flops_per_s * known.devices),
        "decode_sequences": seen.sequences,
        "decode_context_tokens": seen.context_tokens,
        "decode_bytes_per_step": step.bytes,
        "flops_per_s": flops_per_s,
        "ceiling_bytes_per_s": peak.bytes_per_s,
        "ceiling_flops_per_s": peak.flops_per_s,
        "devices": float(known.devices),
    }
