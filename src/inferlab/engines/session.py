"""What this clone has running: `.lab/session.json`, written before anything waits."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inferlab.engines.processes import ProcessId
from inferlab.repository import state_dir

ENGINE, ROUTER, JUPYTER = "engine", "router", "jupyter"


@dataclass(frozen=True)
class Session:
    """A lab that was started.

    Attributes:
        launcher: `native` (processes of this user) or `compose` (containers).
        engine: `gpu` or `cpu`.
        model: Hugging Face id or folder that the engine serves.
        log: the engine's log file, or the router's, with its workers' logs beside it (for compose:
            where the container's log is saved on failure).
        processes: role (`engine`, `jupyter`; `router` and its workers) → process, for the native
            parts.
        compose: the compose command line prefix (`docker compose -p … -f …`), for containers.
    """

    lab: str
    launcher: str
    engine: str
    model: str
    api_port: int
    jupyter_port: int
    log: str
    processes: dict[str, ProcessId]
    compose: tuple[str, ...] = ()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def front(self) -> ProcessId | None:
        """The process that answers: the router where there is one, else the engine."""
        return self.processes.get(ROUTER) or self.processes.get(ENGINE)

    @property
    def half_started(self) -> bool:
        """Workers that are still started one after another: the router comes last."""
        return bool(self.engines) and self.front is None

    @property
    def engines(self) -> dict[str, ProcessId]:
        """All native processes but JupyterLab."""
        return {role: each for role, each in self.processes.items() if role != JUPYTER}

    @property
    def logs(self) -> list[Path]:
        """The log files of engine, or workers and router."""
        log = Path(self.log)
        workers = [role for role in self.engines if role not in (ENGINE, ROUTER)]
        return [*(worker_log(log, role) for role in workers), log]

    def with_process(self, role: str, process: ProcessId) -> "Session":
        return replace(self, processes={**self.processes, role: process})


def api_url() -> str:
    """Where the engine answers: `LAB_API_URL` (set inside the lab container), else this clone's
    running lab, else the configured port."""
    if configured := os.environ.get("LAB_API_URL"):
        return configured.rstrip("/")
    if running := load():
        return running.api_url
    from inferlab.settings import Settings

    return f"http://127.0.0.1:{Settings.load().api_port}"


def log_path(lab: str, role: str = "engine") -> Path:
    """`.lab/logs/chapter03-engine.log` and the like."""
    return state_dir() / "logs" / f"{lab.replace('/', '-')}-{role}.log"


def worker_log(log: Path, worker: str) -> Path:
    """Where a worker's log lies, beside its router's."""
    return log.with_name(f"{log.stem}-{worker}.log")


def save(session: Session) -> None:
    """Write the session atomically: a half-written one could not be stopped."""
    write_atomically(_session_file(), json.dumps(asdict(session), indent=2, ensure_ascii=False))


def load() -> Session | None:
    """The session that was written last, running or not; None when there is none."""
    try:
        raw = json.loads(_session_file().read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    raw["processes"] = {role: ProcessId(**value) for role, value in raw["processes"].items()}
    raw["compose"] = tuple(raw["compose"])
    return Session(**raw)


def forget() -> None:
    """Remove the session file."""
    _session_file().unlink(missing_ok=True)


def jupyter_token(configured: str) -> str:
    """The configured token, else one generated once per clone and kept in `.lab/jupyter_token`."""
    if configured:
        return configured
    kept = state_dir() / "jupyter_token"
    if not kept.is_file():
        write_atomically(kept, secrets.token_hex(16))
        kept.chmod(0o600)
    return kept.read_text(encoding="utf-8").strip()


def write_atomically(path: Path, text: str) -> None:
    """Write to a neighbour, then rename: readers see the old file or the new one, never half."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _session_file() -> Path:
    return state_dir() / "session.json"
