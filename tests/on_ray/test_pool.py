"""The pool: every unit once and in time, whatever its actors do, and no more of them held than there is work for."""

import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dhdiff_ray.on_ray.pool import map_units

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def pickled_by_value():
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


class Odd:
    """Does what a unit says."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, unit):
        at, what = unit
        mark = self.folder / f"{what} {at}"
        first = not mark.exists()
        with mark.open("a") as told:
            told.write("begun\n")
        if what == "wrong":
            raise ValueError(f"{at} is wrong")
        if what == "raises":
            raise OSError(28, "No space left")
        if what == "poison" or (what == "dies once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "freezes once" and first:
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "raises once" and first:
            raise RuntimeError("not yet")
        return at * 10


class Stillborn:
    def __init__(self):
        raise RuntimeError("no such thing")


def begun(folder, name):
    return (folder / name).read_text().count("begun")


def test_every_unit_is_answered_once_whatever_its_actors_do(two_cores, tmp_path):
    said = ["well", "wrong", "raises", "poison", "dies once", "raises once", "well", "well", "well"]
    told = list(map_units(enumerate(said), Odd, {"folder": str(tmp_path)}, workers=2, cpus=0.5))
    assert sorted(at for at, _, _ in told) == list(range(9))
    answers = {at: answer for at, answer, error in told if not error}
    assert answers == {at: at * 10 for at in (0, 4, 5, 6, 7, 8)}
    errors = {at: error for at, _, error in told if error}
    assert errors[1] == "1 is wrong"
    assert "No space left" in errors[2]
    assert errors[3].startswith("its process died 3 times")
    tries = {"wrong 1": 1, "raises 2": 3, "poison 3": 3, "dies once 4": 2, "raises once 5": 2}
    assert {name: begun(tmp_path, name) for name in tries} == tries


def test_a_unit_whose_time_is_up_is_begun_elsewhere(two_cores, tmp_path):
    said = ["well", "freezes once", "well", "well"]
    start = time.monotonic()
    told = list(map_units(enumerate(said), Odd, {"folder": str(tmp_path)}, workers=1, seconds=5))
    assert sorted(told) == [(at, at * 10, "") for at in range(4)]
    assert begun(tmp_path, "freezes once 1") == 2
    assert time.monotonic() - start < 120, "an unlimited wait would not end at all"


def test_a_death_is_put_down_to_no_other_unit(two_cores, tmp_path):
    """An answer that its process had no time to send must not make the unit before look like the one that kills."""
    said = ["well"] * 30
    said[4] = said[17] = "poison"
    told = list(map_units(enumerate(said), Odd, {"folder": str(tmp_path)}, workers=2, cpus=0.5))
    assert sorted(at for at, _, error in told if error) == [4, 17]
    assert [begun(tmp_path, f"poison {at}") for at in (4, 17)] == [3, 3]
    assert {begun(tmp_path, f"well {at}") for at, what in enumerate(said) if what == "well"} == {1}


def test_units_are_drawn_as_they_are_needed(two_cores, tmp_path):
    drawn = []

    def planned():
        for at in range(40):
            drawn.append(at)
            yield at, "well"

    most = 0
    for done, _ in enumerate(map_units(planned(), Odd, {"folder": str(tmp_path)}, workers=2, cpus=0.5), 1):
        most = max(most, len(drawn) - done)
    assert len(drawn) == 40
    assert most <= 2 * 2


def test_nothing_to_do_starts_nothing_and_a_worker_that_cannot_be_made_says_why(two_cores, tmp_path):
    assert list(map_units([], Odd, {"folder": str(tmp_path)})) == []
    with pytest.raises(Exception, match="no such thing"):
        list(map_units([(0, "well")], Stillborn, {}, workers=1))


def test_an_actor_that_finds_no_core_is_not_waited_for_when_all_units_are_done(two_cores, tmp_path):
    """Two pools side by side, each with a core and waiting for another, would wait for ever."""
    import ray

    other = ray.remote(num_cpus=1)(Odd).remote(str(tmp_path))
    ray.get(other.__call__.remote((99, "well")))
    told = map_units(enumerate(["well"] * 6), Odd, {"folder": str(tmp_path)}, workers=2)
    answered = queue.Queue()
    threading.Thread(target=lambda: answered.put(sorted(told)), daemon=True).start()
    assert answered.get(timeout=90) == [(at, at * 10, "") for at in range(6)]
    ray.kill(other)
