"""The record: one experiment's figures with everything needed to judge and rerun them."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from inferlab.hardware.host import HostInfo
from inferlab.hardware.timing import Series
from inferlab.measure.statistics import mean_interval

SCHEMA_VERSION = 1


class Figure(BaseModel):
    """One figure under one condition: its repeats, and Student's t interval of their mean.

    Attributes:
        name, unit, labels: as in `inferlab.hardware.timing.Series`.
        values: one a repeat.
        low, high: 95 % interval; equal to the mean when there is one repeat alone.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    unit: str
    labels: dict[str, Any] = Field(default_factory=dict)
    values: list[float]
    mean: float
    low: float
    high: float

    @classmethod
    def from_series(cls, series: Series) -> "Figure":
        interval = mean_interval(series.values)
        single = interval.n == 1
        return cls(
            name=series.name,
            unit=series.unit,
            labels=series.labels,
            values=series.values,
            mean=interval.mean,
            low=interval.mean if single else interval.low,
            high=interval.mean if single else interval.high,
        )


class Software(BaseModel):
    """What the figures were made with; a version is `None` where that software had no part."""

    model_config = ConfigDict(frozen=True)
    git_commit: str | None
    git_dirty: bool | None
    python: str
    torch: str | None = None
    cuda: str | None = None
    engine: str | None = None


class Model(BaseModel):
    """The model measured.

    `weights` is `random` or `real`: speed can be judged on either, quality cannot.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    weights: str
    dtype: str


class Record(BaseModel):
    """One experiment.

    `device` names the GPU as NVML does, or the CPU as the system does.
    """

    model_config = ConfigDict(frozen=True)
    schema_version: int = SCHEMA_VERSION
    lab: str
    experiment: str
    device: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str
    repeats: int
    host: HostInfo
    software: Software
    model: Model | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    figures: list[Figure]

    def select(self, name: str, **labels: Any) -> list[Figure]:
        """Figures of that name whose labels include `labels`, in the order measured."""
        return [
            figure
            for figure in self.figures
            if figure.name == name and labels.items() <= figure.labels.items()
        ]

    def one(self, name: str, **labels: Any) -> Figure:
        """The single figure of that name and those labels.

        Raises:
            KeyError: there is none, or there are several.
        """
        found = self.select(name, **labels)
        if len(found) != 1:
            raise KeyError(f"{len(found)} figures {name!r} with {labels} in {self.experiment}")
        return found[0]
