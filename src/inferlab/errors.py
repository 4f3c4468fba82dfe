"""Errors meant for the reader: one line that says what was wrong and what to do about it."""


class LabError(Exception):
    """A check or an action failed; the command ends with exit code 1.

    Args:
        message: what was wrong, with the value that was found.
        remedy: what to do about it; empty when nothing can be suggested.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} → {self.remedy}" if self.remedy else self.message


class UsageError(LabError):
    """The command was called the wrong way; it ends with exit code 2."""

    exit_code = 2
