"""Where a record comes from: commit, machine, software."""

import json
import os
import subprocess
from pathlib import Path

from inferlab.hardware.host import HostInfo
from inferlab.records.schema import Software
from inferlab.repository import root

# Versions as the measuring interpreter sees them; it may be another one than this.
_VERSIONS = """
import json, platform
found = {"python": platform.python_version(), "torch": None, "cuda": None}
try:
    import torch
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
except ImportError:
    pass
print(json.dumps(found))
"""


def describe_software(python: Path, engine: str | None = None) -> Software:
    """Versions in the interpreter that measured, and the commit of this clone.

    A copy without a whole `.git` (an offline host, an image) names its commit in
    `INFERLAB_GIT_COMMIT`, which wins; whether it was changed is then not known.
    """
    found = json.loads(
        subprocess.run([python, "-c", _VERSIONS], capture_output=True, check=True).stdout
    )
    commit, changes = commit_of_clone(), None
    if commit and not os.environ.get("INFERLAB_GIT_COMMIT"):
        changes = _git(
            "status", "--porcelain", "--untracked-files=no", "--", "src", "code", "scripts"
        )
    return Software(git_commit=commit, git_dirty=None if changes is None else bool(changes),
                    engine=engine, **found)  # fmt: skip


def commit_of_clone() -> str | None:
    """The commit of this clone, or what `INFERLAB_GIT_COMMIT` says; None where neither is known."""
    return os.environ.get("INFERLAB_GIT_COMMIT") or _git("rev-parse", "--verify", "HEAD")


def device_of(host: HostInfo) -> str:
    """The name a record is filed under: the first GPU's, or the CPU's."""
    return host.gpus[0].name if host.gpus else host.cpu.model


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(root()), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
