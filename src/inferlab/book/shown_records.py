"""A lab's records of one kind of device as its notebook shows them: what a record makes, or, where
there is none yet, a line that says how to make it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from IPython.display import Markdown

from inferlab.book.claims import judge_labs
from inferlab.errors import LabError
from inferlab.plots.tables import table
from inferlab.records import store
from inferlab.records.schema import Record

VERDICTS = {"B faster": "B 更好", "A faster": "A 更好", "no difference": "看不出差别"}
T = TypeVar("T")


@dataclass(frozen=True)
class ShownRecords:
    """One lab's records of one kind of device.

    Attributes:
        devices: folders of the records below `results/`; an experiment is taken from the first
            that has it.
    """

    lab: str
    devices: tuple[str, ...] = ("h200",)

    def find(self, experiment: str) -> Record | None:
        """The record of an experiment; None when there is none, or it is damaged."""
        for device in self.devices:
            with suppress(LabError):
                return store.find(self.lab, experiment, device)
        return None

    def shown(self, experiment: str, draw: Callable[[Record], T]) -> T | Markdown:
        """What `draw` makes of a record; where there is none, how to make one."""
        record = self.find(experiment)
        return draw(record) if record else self.missing([experiment])

    def missing(self, experiments: Iterable[str]) -> Markdown:
        """Says that there is no record yet."""
        command = f"./lab record {self.lab} --only {','.join(experiments)}"
        kind = " H200 " if self.devices == ("h200",) else "这种机器的"
        return Markdown(f"*还没有{kind}记录。有机器时自己测：* `{command}`")

    def gains(self, *experiments: str) -> Markdown:
        """B ÷ A of each record that compares, with intervals."""
        found = [(name, record) for name in experiments if (record := self.find(name))]
        rows = [
            (name, sides_of(record), each.name, each.ratio, f"{each.low:.3f}–{each.high:.3f}",
             VERDICTS[each.verdict])
            for name, record in found
            for each in record.comparisons
        ]  # fmt: skip
        if not rows:
            return self.missing(experiments)
        heads = ["H200 记录", "A → B", "指标", "B ÷ A", "区间（各行合起来 95 %）", "结论"]
        return table(heads, rows)

    def side_by_side(self, experiments: Mapping[str, str], names: Sequence[str]) -> Markdown:
        """Figures of several records in columns.

        Args:
            experiments: row's name for the reader → experiment.
            names: figures, with their `part` after a space where they have one (`itl_ms p99`), and
                their `request` after that (`ttft_ms p50 long`).
        """
        found = {label: self.find(each) for label, each in experiments.items()}
        if not all(found.values()):
            return self.missing(experiments.values())

        def mean(record: Record, name: str) -> float:
            figure, *labels = name.split()
            return record.one(figure, **dict(zip(("part", "request"), labels, strict=False))).mean

        rows = [(label, *(mean(record, name) for name in names))
                for label, record in found.items() if record]  # fmt: skip
        return table(["H200 记录", *names], rows)

    def verdicts(self) -> Markdown:
        """The lab's claims on its records."""
        found = [each for each in judge_labs([self.lab]) if each.sources]
        if not found:
            return Markdown(f"*还没有 H200 记录；有了之后：* `./lab claims {self.lab}`")
        rows = [(e.claim.says, e.claim.condition, e.verdict, e.reason) for e in found]
        return table(["说法", "条件", "判定", "依据"], rows)


def sides_of(record: Record) -> str:
    if "engine_a" not in record.parameters:
        return "静态 → 连续"
    return f"{record.parameters['engine_a']} → {record.parameters['engine_b']}"
