"""Which exercises a reader has solved: one JSON file under `.lab/`, on the reader's machine
alone."""

import json
from datetime import UTC, datetime

from inferlab.engines.session import write_atomically
from inferlab.repository import state_dir


def solved() -> dict[str, str]:
    """Exercise id → when it was solved (UTC, ISO 8601).

    A damaged file counts as empty.
    """
    try:
        content = json.loads((state_dir() / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def mark_solved(exercise: str) -> None:
    """Note that an exercise was solved; the first time stands."""
    known = solved()
    known.setdefault(exercise, datetime.now(UTC).isoformat(timespec="seconds"))
    text = json.dumps(known, indent=1, sort_keys=True) + "\n"
    write_atomically(state_dir() / "progress.json", text)
