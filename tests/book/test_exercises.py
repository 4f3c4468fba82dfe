"""Exercises: right answers are computed, wrong ones get a hint, progress is kept."""

import pytest

from inferlab.book import progress
from inferlab.book.exercises import check, exercises
from inferlab.errors import UsageError


@pytest.fixture
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "state_dir", lambda: tmp_path)
    return tmp_path


# Computed by hand from the models' and cards' published figures.
BY_HAND = {
    "ch03-1": 2 * 80 * 8 * 128 * 2 * 32768 / 2**30,
    "ch03-2": 40 * 2**30 / (8192 * 2 * 36 * 8 * 128 * 1),
    "ch03-3": 148e12 / 4.0e12,
    "ch03-4": (8_190_735_360 - 151_936 * 4096) * 2 / 2.039e12 * 1e3 + 1024 * 147_456 / 2.039e9,
    "ch03-5": "memory bandwidth",
    "ch05-1": 75,  # 1,199 tokens
    "ch05-2": 34,  # 2,730 blocks, 80 a request
    "ch05-3": 720 / 2048,
    "ch05-4": 16 + 15,
    "ch05-5": 0.02 * 141 * 2**30 / 147_456,
    "ch05-6": 166,  # 714 TFLOP/s ÷ 4.3 TB/s
    "ch05-7": 240,
    "ch07-1": 10_112 * 147_456 / 1e6,
    "ch07-2": 8192 * 147_456 / 3.125e9,
    "ch07-3": 512 * 36,
    "ch07-4": 3,
}


@pytest.mark.parametrize("exercise", BY_HAND)
def test_the_answer_by_hand_is_accepted_and_noted(exercise, own_progress, capsys):
    assert check(exercise, BY_HAND[exercise])
    assert "✓" in capsys.readouterr().out
    assert list(progress.solved()) == [exercise]


@pytest.mark.parametrize("exercise", BY_HAND)
def test_a_wrong_answer_gets_a_hint_that_does_not_give_it_away(exercise, own_progress, capsys):
    wrong = "compute" if isinstance(BY_HAND[exercise], str) else 2 * BY_HAND[exercise]
    assert not check(exercise, wrong)
    assert exercises()[exercise].hint in capsys.readouterr().out
    assert str(exercises()[exercise].expected()) not in exercises()[exercise].hint
    assert progress.solved() == {}


def test_a_placeholder_is_no_answer(own_progress, capsys):
    assert not check("ch03-1", ...)
    assert "还没有作答" in capsys.readouterr().out


def test_an_unknown_exercise_is_named(own_progress):
    with pytest.raises(UsageError, match="ch99-1"):
        check("ch99-1", 1)


def test_a_damaged_progress_file_counts_as_empty(own_progress):
    (own_progress / "progress.json").write_text("{broken")
    assert progress.solved() == {}
