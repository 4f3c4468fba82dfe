"""Verdicts: a sentence of the book (or of a lab), what would confirm or refute it, and what the
records say.

A claim is data (`code/<lab>/claims.yaml`). It is confirmed when every bound under `confirm` surely
holds, refuted when one under `refute` surely holds, and not comparable otherwise. *Surely* means
that the whole 95 % interval lies on that side of the threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inferlab.book.quantities import QUANTITIES, Records
from inferlab.errors import LabError, UsageError
from inferlab.measure.statistics import Interval
from inferlab.records.schema import Record
from inferlab.repository import lab_dir, labs, root

_NO_SIGN = str.maketrans({"≥": "与", "≤": "与"})
Verdict = Literal["证实", "推翻", "无法比较"]


class Bound(BaseModel):
    """A quantity on one side of a threshold; `where` adds to the claim's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    quantity: str
    where: dict[str, Any] = {}
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_one_threshold(self) -> "Bound":
        if self.quantity not in QUANTITIES:
            raise ValueError(f"no quantity {self.quantity!r}; known: {', '.join(QUANTITIES)}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most, one of them")
        return self

    @property
    def threshold(self) -> float:
        value = self.at_least if self.at_least is not None else self.at_most
        assert value is not None
        return value

    def label(self, claim: "Claim") -> str:
        """What the quantity is called; a figure by its own name and labels, a ratio by what
        differs."""
        where = {**claim.where, **self.where}
        if self.quantity == "ratio":
            over, under = ("、".join(map(str, where[side].values())) for side in ("over", "under"))
            return f"{where['name']}（{over} ÷ {under}）"
        if self.quantity == "gap":
            return f"{where['name']} {QUANTITIES[self.quantity].label}"
        if self.quantity != "figure":
            return QUANTITIES[self.quantity].label
        shown = [str(value) for key, value in where.items() if key not in ("experiment", "name")]
        return f"{where.get('name')}（{'，'.join(shown)}）"

    def describe(self, claim: "Claim") -> str:
        """Such as `达到的带宽 ÷ 实测带宽上限 ≥ 50 %`."""
        quantity = QUANTITIES[self.quantity]
        scale, unit = (100, " %") if quantity.unit == "%" else (1, quantity.unit)
        sign = "≥" if self.at_least is not None else "≤"
        return f"{self.label(claim)} {sign} {self.threshold * scale:g}{unit}"

    def holds(self, interval: Interval) -> bool | None:
        """Whether it holds; None when the interval has the threshold inside."""
        if interval.low < self.threshold < interval.high:
            return None
        if self.at_least is not None:
            return interval.low >= self.threshold
        return interval.high <= self.threshold


class Claim(BaseModel):
    """One entry of `claims.yaml`.

    Attributes:
        says: the sentence; verbatim when `by` is `book`.
        by: `book`, or `lab` for a statement of this repository's own.
        section: where the book says it, or what the lab's statement belongs to.
        condition: under which it is tested, for the reader.
        device: class of device that it can be tested on.
        where: selects the figures of `confirm` and `refute`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    says: str
    by: Literal["book", "lab"]
    section: str
    condition: str
    device: Literal["gpu", "cpu", "any"] = "any"
    where: dict[str, Any]
    confirm: list[Bound] = Field(min_length=1)
    refute: list[Bound] = Field(min_length=1)


@dataclass(frozen=True)
class Source:
    """A record behind a verdict."""

    path: str
    device: str
    date: str
    commit: str

    @classmethod
    def of(cls, path: Path, record: Record) -> "Source":
        shown = path.relative_to(root()) if path.is_relative_to(root()) else path
        return cls(str(shown), record.device, record.created[:10],
                   (record.software.git_commit or "未知")[:7])  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A claim's verdict on one device: why, the records behind it, and what was measured, by the
    quantity's label."""

    claim: Claim
    device: str
    verdict: Verdict
    reason: str
    measured: dict[str, Interval]
    sources: tuple[Source, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data; an unbounded interval end is null."""
        return {
            "claim": self.claim.model_dump(exclude_none=True),
            "device": self.device,
            "verdict": self.verdict,
            "reason": self.reason,
            "measured": {name: _plain(found) for name, found in self.measured.items()},
            "records": [vars(source) for source in self.sources],
        }


def load_claims(lab: str) -> list[Claim]:
    """The claims of a lab, in order; none when it has no `claims.yaml`.

    Raises:
        UsageError: there is no such lab.
        LabError: the file is not valid.
    """
    path = lab_dir(lab) / "claims.yaml"
    if not path.is_file():
        return []
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
        return [Claim.model_validate(entry) for entry in entries]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise LabError(f"{path} 不是有效的 claims.yaml（{error}）") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise LabError(f"{path} 写错了（{place}：{first['msg']}）") from None


def judge_labs(names: Sequence[str] = (), results: Path | None = None) -> list[Finding]:
    """Findings of the labs named (all by default), on every device that has records of the claim;
    where none has, one that says so.

    Args:
        results: a folder laid out as `results/`.

    Raises:
        UsageError: a lab has no claims.
    """
    found: list[Finding] = []
    for name in names or labs():
        claims = load_claims(name)
        if names and not claims:
            raise UsageError(f"{name} 没有 claims.yaml", remedy="换一个实验")
        folder = results or root() / "results"
        devices = sorted(each for each in folder.glob("*") if (each / name).is_dir())
        for claim in claims:
            judged = [judge(claim, Records(each, name)) for each in devices or [folder / "本机"]]
            found += [each for each in judged if each.sources] or judged[:1]
    return found


def judge(claim: Claim, records: Records) -> Finding:
    """The verdict on a claim by one device's records; never raises for what they lack."""
    own = Records(records.folder, records.lab)
    measured: dict[str, Interval] = {}
    try:
        for bound in [*claim.confirm, *claim.refute]:
            where = {**claim.where, **bound.where}
            label = bound.label(claim)
            if label not in measured:
                measured[label] = QUANTITIES[bound.quantity].compute(own, where)
        verdict, reason = _decide(claim, measured)
    except (LabError, ValueError) as error:
        verdict, reason = "无法比较", str(error)
    sources = tuple(Source.of(path, record) for path, record in own.used.items())
    if sources and (other := _other_class(claim, own)):
        verdict, reason = "无法比较", other
    device = sources[0].device if sources else records.folder.name
    return Finding(claim, device, verdict, reason, measured, sources)


def _decide(claim: Claim, measured: dict[str, Interval]) -> tuple[Verdict, str]:
    def held(bounds: Sequence[Bound], wanted: bool | None) -> list[str]:
        return [
            bound.describe(claim)
            for bound in bounds
            if bound.holds(measured[bound.label(claim)]) is wanted
        ]

    if against := held(claim.refute, True):
        return "推翻", "；".join(against)
    if len(fulfilled := held(claim.confirm, True)) == len(claim.confirm):
        return "证实", "；".join(fulfilled)
    if unsure := held([*claim.confirm, *claim.refute], None):
        tried = "、".join(dict.fromkeys(text.translate(_NO_SIGN) for text in unsure))
        return "无法比较", f"95 % 区间跨过阈值：{tried}"
    return (
        "无法比较",
        f"既不满足证实的条件（{'；'.join(held(claim.confirm, False))}），也不满足推翻的",
    )


def _other_class(claim: Claim, records: Records) -> str:
    record = next(iter(records.used.values()))
    kind = "gpu" if record.host and record.host.gpus else "cpu"
    if claim.device in ("any", kind):
        return ""
    return f"这条说法只能在 {claim.device.upper()} 上检验，记录来自 {kind.upper()}"


def _plain(found: Interval) -> dict[str, float | int | None]:
    low, high = (value if math.isfinite(value) else None for value in (found.low, found.high))
    return {"mean": found.mean, "low": low, "high": high, "n": found.n}
