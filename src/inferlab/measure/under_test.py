"""What a measure is given: a running engine with what is known of it, and how to mark phases."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from inferlab.arithmetic.shapes import ModelShape
from inferlab.arithmetic.work import Ceilings
from inferlab.load.endpoint import Endpoint


@dataclass(frozen=True)
class UnderTest:
    """A running engine.

    Attributes:
        options: its configuration: the file, and the flags added.
        shape: of its model; None when no `config.json` is at hand.
        ceilings: of this device; None when none are known.
        repeats: how often each condition is measured.
        mark: marks a phase for the GPU's telemetry.
        notes: a measure may add what the record should say besides its figures.
        vocabulary: prompts' token ids are drawn below it.
        workers: role → addresses of the engines behind a router; empty for a single engine.
    """

    endpoint: Endpoint
    options: dict[str, Any] = field(default_factory=dict)
    shape: ModelShape | None = None
    ceilings: Ceilings | None = None
    repeats: int = 3
    seed: int = 0
    mark: Callable[[str], AbstractContextManager[Any]] = nullcontext
    notes: dict[str, Any] = field(default_factory=dict)
    vocabulary: int = 2048
    workers: dict[str, list[str]] = field(default_factory=dict)
