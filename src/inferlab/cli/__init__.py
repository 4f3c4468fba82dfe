"""The commands: each parses, calls one function and prints."""

import sys


def main() -> None:
    """Entry point of `inferlab`: a LabError becomes one line and its exit code."""
    from inferlab.cli.app import app
    from inferlab.errors import LabError

    try:
        app()
    except LabError as error:
        print(f"错误: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
