"""One job at a time works on a run, and a dead one does not keep it."""

import json
import subprocess
import sys
import threading
import time

import pytest

from dhdiff_ray.on_ray.lease import FILE, holder, lease
from dhdiff_ray.storage import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of(str(tmp_path), "run")


def elsewhere(folder, **changed):
    """A lease that a process of another machine wrote."""
    other = {"token": "t", "job": "train-run-1", "host": "far", "boot": 0.0, "pid": 1, "process_started": 0.0}
    folder.write_json(FILE, other | {"since": 0.0, "beat": 0.0} | changed)


def test_a_second_job_is_refused_while_the_first_works_and_told_whom_to_follow(folder, monkeypatch):
    job = {"metadata": {"job_submission_id": "train-run-7"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    with (
        lease(folder),
        pytest.raises(ValueError, match=r"train-run-7 .* jobs logs --follow train-run-7"),
        lease(folder),
    ):
        raise AssertionError("two hold one run")
    assert holder(folder) is None, "it was given back"
    with lease(folder):
        pass


def test_a_job_that_was_killed_here_is_followed_at_once(folder):
    code = "import os,sys; from dhdiff_ray.on_ray import lease as l; from dhdiff_ray.storage import RunFolder\n"
    code += "l._take(RunFolder(sys.argv[1]), l._me(), 30); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, folder.uri], check=False)
    assert holder(folder) is not None
    start = time.monotonic()
    with lease(folder):
        assert time.monotonic() - start < 5


def test_a_silent_job_of_another_machine_is_taken_over_after_a_while(folder):
    elsewhere(folder)
    start = time.monotonic()
    with lease(folder, stale=1.0):
        assert time.monotonic() - start >= 1.0
        assert holder(folder)["token"] != "t"


def test_a_job_of_another_machine_that_gives_signs_of_life_keeps_its_run(folder):
    elsewhere(folder)
    threading.Timer(0.5, lambda: elsewhere(folder, beat=1.0)).start()
    with pytest.raises(ValueError, match="train-run-1 on far works on the run"), lease(folder, stale=5.0):
        raise AssertionError("two hold one run")


def test_of_many_who_ask_at_once_one_holds_the_run(folder):
    held, most, refused, lock = [0], [0], [0], threading.Lock()

    def work():
        try:
            with lease(folder):
                with lock:
                    held[0] += 1
                    most[0] = max(most[0], held[0])
                time.sleep(0.2)
                with lock:
                    held[0] -= 1
        except ValueError:
            refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert refused[0] >= 1


def test_a_held_lease_is_renewed(folder):
    with lease(folder, renew=0.1):
        first = holder(folder)["beat"]
        time.sleep(0.5)
        assert holder(folder)["beat"] > first
