"""One live line while an engine starts (phase, seconds); plain lines without a terminal."""

from types import TracebackType

from rich.console import Console
from rich.status import Status


class StartupLine:
    """Context manager whose `update(phase, seconds)` redraws the line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._phase = ""

    def __enter__(self) -> "StartupLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pause()

    def update(self, phase: str, seconds: float) -> None:
        """Show the phase that the engine has reached and the seconds since it was started."""
        if self._console.is_terminal:
            self._live().update(f"{phase} … {seconds:.0f} s")
        elif phase != self._phase:
            self._console.print(f"  {seconds:5.1f} s  {phase}")
        self._phase = phase

    def say(self, line: str) -> None:
        """Print a line of its own; the live line makes room."""
        self.pause()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def pause(self) -> None:
        """Remove the live line, so that another program may write to the terminal."""
        if self._status:
            self._status.stop()
            self._status = None

    def _live(self) -> Status:
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        return self._status
