"""What an exercise is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """One question.

    Attributes:
        id: chapter and number, such as `ch03-1`.
        question: in Chinese.
        expected: computes the answer: a number, or a word.
        tolerance: relative, for numbers.
        hint: shown when the answer is wrong; points to the way, not to the answer.
    """

    id: str
    question: str
    expected: Callable[[], float | str]
    hint: str
    tolerance: float = 0.02

    def accepts(self, answer: Any) -> bool:
        expected = self.expected()
        if isinstance(expected, str):
            return str(answer).strip().lower() == expected.lower()
        try:
            return abs(float(answer) - expected) <= self.tolerance * abs(expected)
        except (TypeError, ValueError):
            return False
