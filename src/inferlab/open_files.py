"""The limit of open files: a stream needs a socket each, a routed one two."""

import contextlib


def raise_file_limit() -> None:
    """Lifts the soft limit of open files to the hard one."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
