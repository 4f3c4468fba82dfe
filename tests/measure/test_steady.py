"""Runs that cannot stand for their load."""

from random import Random

import pytest
from handmade_samples import sample

from inferlab.load.arrivals import first, poisson
from inferlab.measure.steady import steady_state
from inferlab.measure.window import Window, steady_window


def queue(rate: float, service_s: float, servers: int, count: int, seed: int = 0):
    """Samples of a first-come-first-served queue: scheduled by Poisson, served in slots."""
    free = [0.0] * servers
    samples = []
    for index, at in enumerate(first(poisson(rate, Random(seed)), count)):
        slot = free.index(min(free))
        start = max(at, free[slot])
        free[slot] = start + service_s
        samples.append(
            sample(
                at, wait_s=0, ttft_s=start - at + 0.01, itl_s=(service_s - 0.01) / 10, index=index
            )
        )
    return samples


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_run(seed: int) -> None:
    assert steady_state(queue(8, 0.3, 4, 600, seed)).ok


@pytest.mark.parametrize("seed", range(5))
def test_an_overloaded_run(seed: int) -> None:
    state = steady_state(queue(8, 1.0, 4, 300, seed))
    assert state.verdict == "overloaded"
    assert "超过服务能力" in state.reason


def test_a_run_that_is_too_short() -> None:
    assert steady_state(queue(8, 0.3, 4, 20)).verdict == "too short"
    closed = [sample(0.02 * i, itl_s=0.5) for i in range(100)]
    assert steady_state(closed, Window(0.0, 2.0)).verdict in ("too short", "overloaded")


def test_a_warm_up_shorter_than_an_answer_is_too_short() -> None:
    """Five a second, two seconds an answer: until then less ends than is sent."""
    samples = [sample(0.2 * number, itl_s=0.2) for number in range(100)]
    window = steady_window(samples, warm_up=0.05)
    assert "在途请求还没有满" in steady_state(samples, window).reason
    assert "在途请求还没有满" not in steady_state(samples, window, closed=True).reason
    assert steady_state(samples, steady_window(samples, warm_up=0.2)).ok


def test_a_run_that_slows_down() -> None:
    samples, at = [], 0.0
    for number in range(400):
        service = 0.05 if number < 250 else 0.1
        samples.append(sample(at, ttft_s=0.01, itl_s=(service - 0.01) / 10))
        at += service
    assert steady_state(samples).verdict == "drifting"


def places(starts_s: list[float], answers: int):
    """Samples of a closed loop: answers of one second, the first token after half of it."""
    return [
        sample(start + number, ttft_s=0.5, itl_s=0.05, index=place)
        for number in range(answers)
        for place, start in enumerate(starts_s)
    ]


def test_places_in_step_make_throughput_depend_on_where_the_window_is_cut() -> None:
    together = places([0.01 * place for place in range(20)], 5)
    state = steady_state(together, closed=True)
    assert state.verdict == "in step"
    assert "用 ramp 把起步错开约 1 s" in state.reason
    assert steady_state(places([0.05 * place for place in range(20)], 5), closed=True).ok


def test_one_place_in_step_with_itself_is_steady() -> None:
    """Over so many answers as a window of one place has, the cut makes no difference."""
    assert steady_state(places([0.0], 60), closed=True).ok


def test_an_open_loop_is_not_in_step() -> None:
    together = places([0.01 * place for place in range(20)], 5)
    window = Window(1.0, 4.5)
    assert steady_state(together, window, closed=True).verdict == "in step"
    assert steady_state(together, window).ok
