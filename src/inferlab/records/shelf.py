"""Where the records of one call of `./lab record` lie: the whole ones, and those still measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferlab.errors import LabError
from inferlab.records import store
from inferlab.records.experiments import Experiment
from inferlab.records.schema import Record
from inferlab.repository import state_dir


@dataclass(frozen=True)
class Shelf:
    """One device's records of one lab.

    Attributes:
        device: its full name.
        folder: instead of `results/`.
    """

    device: str
    lab: str
    folder: Path | None = None

    def place(self, experiment: Experiment) -> Path:
        """Where the record of an experiment belongs."""
        return store.place_of(self.device, self.lab, experiment.id, self.folder)

    def unfinished(self, experiment: Experiment) -> Path | None:
        """What was measured so far, of an experiment that has not ended, or was never let to."""
        path = store.place_of(self.device, self.lab, experiment.id, _unfinished())
        return path if path.is_file() else None

    def keep_unfinished(self, record: Record) -> None:
        """Apart from the whole ones: a record of an earlier time is not replaced by half of one.

        Raises:
            LabError: the disk is full or not writable.
        """
        store.save(record, _unfinished())

    def put(self, record: Record) -> tuple[Path, str]:
        """As `store.keep`; nothing of it is unfinished any more."""
        kept = store.keep(record, store.path_of(record, self.folder))
        store.path_of(record, _unfinished()).unlink(missing_ok=True)
        return kept

    def has_whole(self, experiment: Experiment, wanted: dict[str, Any]) -> bool:
        """Whether a whole record of this description lies here."""
        try:
            found = store.load(self.place(experiment))
        except LabError:
            return False
        old = found.parameters.get("description")
        if old is None and experiment.module:
            # Records from before descriptions were kept.
            old = wanted if found.parameters.get("module") == experiment.module else None
            old = old if found.repeats == wanted["repeats"] else None
        return not found.partial and old == json.loads(json.dumps(wanted))


def _unfinished() -> Path:
    return state_dir() / "unfinished"
