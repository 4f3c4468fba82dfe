"""Exercises that check themselves.

The expected answer is computed, never stored.
In a notebook:

    check("ch03-1", answer)      # prints ✓ or ✗ with a hint, and notes what was solved
"""

from typing import Any

from inferlab.book import chapter03, chapter05, chapter07, progress
from inferlab.book.exercise import Exercise
from inferlab.errors import UsageError


def exercises() -> dict[str, Exercise]:
    """All exercises by id."""
    found = (*chapter03.EXERCISES, *chapter05.EXERCISES, *chapter07.EXERCISES)
    return {exercise.id: exercise for exercise in found}


def check(exercise_id: str, answer: Any) -> bool:
    """Say whether the answer is right, and note it in the reader's progress when it is.

    `...` (the notebook's placeholder) counts as not answered yet.

    Raises:
        UsageError: there is no such exercise.
    """
    known = exercises()
    if exercise_id not in known:
        raise UsageError(f"没有练习 {exercise_id!r}", remedy=f"可选：{'、'.join(known)}")
    exercise = known[exercise_id]
    if answer is ...:
        print(f"○ {exercise_id} 还没有作答：{exercise.question}")
        return False
    if not exercise.accepts(answer):
        print(f"✗ {exercise_id} 不对（你的答案：{answer}）。提示：{exercise.hint}")
        return False
    progress.mark_solved(exercise_id)
    print(f"✓ {exercise_id} 正确")
    return True
