"""Deadlines that follow how long things take; a training whose step hangs ends its process."""

import time

import pytest

from dhdiff_ray.on_ray import deadline
from dhdiff_ray.on_ray.deadline import Watchdog, longest_wait


@pytest.fixture
def ended(monkeypatch):
    """ended(asked) -> a watchdog and the exit codes and words it ended with."""
    monkeypatch.setattr(deadline, "TOLD_SECONDS", 0.0)
    codes, words = [], []
    return lambda asked: (Watchdog(asked, words.append, codes.append), codes, words)


def test_a_deadline_follows_the_longest_so_far_unless_one_is_asked_for():
    assert longest_wait(0, 0) == 1800
    assert longest_wait(0, 1) == 300
    assert longest_wait(0, 60) == 1200
    assert longest_wait(7, 60) == 7


def test_a_unit_of_many_batches_has_the_time_of_all_of_them_and_the_least_once():
    assert longest_wait(0, 0, 64) == 64 * 1800
    assert longest_wait(0, 0.1, 64) == 300
    assert longest_wait(0, 60, 64) == 64 * 1200
    assert longest_wait(7, 60, 64) == 64 * 7


def test_a_step_that_hangs_ends_the_process_and_says_so(ended):
    watchdog, codes, words = ended(0.2)
    with watchdog:
        watchdog.step()
        limit = time.monotonic() + 20
        while not codes and time.monotonic() < limit:
            time.sleep(0.02)
    assert codes == [1]
    assert words == ["no step was done for 0 s: this worker ends, and training goes on from its last checkpoint"]


def test_steps_that_come_and_a_training_that_is_over_end_nothing(ended):
    watchdog, codes, _ = ended(30.0)
    with watchdog:
        for _ in range(10):
            time.sleep(0.02)
            watchdog.step()
    time.sleep(0.1)
    assert not codes


def test_a_checkpoint_that_takes_longer_than_a_step_ends_nothing(ended):
    watchdog, codes, _ = ended(0)
    with watchdog:
        watchdog.step()
        with watchdog.between_steps():
            watchdog._last -= 1000  # as if it took so long already; a step has 300 s
            time.sleep(2.3)  # it is looked at every second
        watchdog.step()
    assert not codes
