"""The record: one experiment's figures with everything needed to judge and rerun them.

Version 2 added benchmark runs, comparisons and imports (all fields with defaults), so records of
version 1 still load. `./lab records schema` prints the JSON schema.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferlab.hardware.host import HostInfo
from inferlab.hardware.timing import Series
from inferlab.measure.statistics import mean_interval
from inferlab.records.runs import Run

SCHEMA_VERSION = 2


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

    `weights` is `random`, `real` or `unknown`: speed can be judged on any, quality on real ones
    alone. `dtype` is `unknown` where the server does not tell.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    weights: str
    dtype: str


class EngineInfo(BaseModel):
    """The server that was measured, as far as it tells."""

    model_config = ConfigDict(frozen=True)
    name: str = Field(default="unknown", description="vLLM, SGLang, …")
    version: str | None = Field(default=None, description="from the server's /version")
    endpoint: str = Field(default="", description="a loopback address, or `remote`")
    config: dict[str, Any] = Field(
        default_factory=dict, description="the engine's whole configuration where it is known"
    )
    config_source: str = Field(default="", description="where `config` was read")


class Comparison(BaseModel):
    """B ÷ A of one figure, from interleaved rounds, with its interval."""

    model_config = ConfigDict(frozen=True)
    name: str = Field(description="as in `figures`, such as ttft_ms.p99")
    ratio: float = Field(description="geometric mean of B ÷ A over the rounds")
    low: float
    high: float
    confidence: float = Field(description="of this interval; widened for the number of figures")
    verdict: Literal["A faster", "B faster", "no difference"]


class Record(BaseModel):
    """One experiment, benchmark, A/B comparison, or imported result file."""

    model_config = ConfigDict(frozen=True)
    schema_version: int = Field(default=SCHEMA_VERSION, description="of this format")
    kind: Literal["experiment", "benchmark", "ab", "import"] = "experiment"
    lab: str = Field(description="such as chapter03; `bench` for a server that is no lab's")
    experiment: str = Field(description="name of this record within its lab; the file's name")
    device: str = Field(description="the GPU as NVML names it, or the CPU as the system does")
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str = Field(description="what to run again; without keys")
    repeats: int = Field(description="planned repeats under each condition")
    seed: int | None = Field(default=None, description="of the whole record; runs derive theirs")
    partial: str = Field(default="", description="why it is incomplete; empty for a whole record")
    host: HostInfo | None = Field(
        description="the machine that ran the client (and a local engine); null in an import"
    )
    software: Software
    engine: EngineInfo | None = Field(default=None, description="the server; of A in an A/B")
    engine_b: EngineInfo | None = Field(default=None, description="the server of B in an A/B")
    model: Model | None = None
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="workload, arrivals, SLO and rules, by name"
    )
    figures: list[Figure] = Field(description="each figure under each condition, over its repeats")
    runs: list[Run] = Field(default_factory=list, description="every run, in the order made")
    comparisons: list[Comparison] = Field(default_factory=list, description="of an A/B")

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
