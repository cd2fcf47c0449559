"""One job at a time works on a run, and a dead one does not keep it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dhdiff_ray.run import lease as module
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.lease import FILE, holder, lease


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
    code = "import os,sys; from dhdiff_ray.run import lease as l; from dhdiff_ray.run.folder import RunFolder\n"
    code += "l._take(RunFolder(sys.argv[1]), l._me(), 30); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, folder.uri], check=False)
    assert holder(folder) is not None
    start = time.monotonic()
    with lease(folder):
        assert time.monotonic() - start < 5


def test_a_job_of_another_container_with_this_hosts_name_is_not_taken_for_dead(folder):
    """Its process has a number that means nothing here, or means another one."""
    mine = module._me()
    gone = {**mine, "pid": 2**22 - 1}
    assert module._running(gone) is False
    assert module._running({**gone, "processes": "pid:[1]"}) is None
    old = {name: value for name, value in mine.items() if name != "processes"}
    assert module._running(old) is True, "as jobs of before wrote it"


@pytest.mark.parametrize("seconds", [-3600, -3, 3, 3600])
def test_a_clock_that_was_set_makes_no_live_job_dead(seconds):
    """Both times are told by the clock, so both move with it."""
    mine = module._me()
    moved = mine | {name: mine[name] + seconds for name in ("boot", "process_started", "since", "beat")}
    assert module._running(moved) is not False


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


FAR_JOB = """
import socket, sys, time
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.folder import RunFolder
socket.gethostname = lambda: "far"  # of this machine it would be seen that it is alive
folder = RunFolder(sys.argv[1])
with lease(folder, stale=1.0, renew=0.2):
    for at in range(10**6):
        folder.write_bytes("work", str(at).encode())
        time.sleep(0.02)
"""


def wait_for(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.02)


def stopped(pid):
    """Whether every thread of a process stands still."""
    states = [file.read_text().rpartition(") ")[2][0] for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_a_frozen_job_whose_run_was_taken_over_ends_when_it_wakes_and_leaves_the_run_alone(folder):
    words = [sys.executable, "-c", FAR_JOB, folder.uri]
    frozen = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: folder.exists("work") and folder.read_bytes("work") > b"0")
        os.kill(frozen.pid, signal.SIGSTOP)
        wait_for(lambda: stopped(frozen.pid))
        with lease(folder, stale=1.0, renew=0.2):
            token = holder(folder)["token"]
            os.kill(frozen.pid, signal.SIGCONT)
            told = json.loads(frozen.communicate(timeout=30)[0].removeprefix("@event "))
            assert frozen.returncode == 1, "the exit code of a failed job"
            assert told["event"] == "failed"
            assert f"process {os.getpid()} on" in told["message"]
            assert "took over the run" in told["message"]
            assert holder(folder)["token"] == token, "it took nothing back on its way out"
            there = folder.read_bytes("work")
            time.sleep(0.3)
            assert folder.read_bytes("work") == there
    finally:
        frozen.kill()
        frozen.wait()


@pytest.fixture
def between(monkeypatch):
    """A lock that is free only while no keeper looks or writes."""
    lock, renew = threading.Lock(), module._renew

    def alone(*arguments):
        with lock:
            return renew(*arguments)

    monkeypatch.setattr(module, "_renew", alone)
    return lock


def test_what_may_pass_is_no_loss(folder, monkeypatch, between):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 2.0)
    told = []
    with lease(folder, stale=60.0, renew=0.05, lost=told.append):
        file, mine = Path(folder.path(FILE)), holder(folder)
        with between:
            file.write_text('{"token": "t')  # half of a file
        time.sleep(0.3)

        with between:
            elsewhere(folder)  # a store that shows for a moment what was there before
        wait_for(between.locked)
        time.sleep(0.2)
        folder.write_json(FILE, mine)

        with between:
            Path(folder.path()).rename(folder.path() + "-away")  # a disk that is away
        time.sleep(0.3)
        with between:
            assert not folder.exists(), "nothing is written to where it was"
            Path(folder.path() + "-away").rename(folder.path())

        with between:
            file.unlink()  # somebody removed it by hand
        wait_for(file.exists)
        beat = holder(folder)["beat"]
        wait_for(lambda: holder(folder)["beat"] > beat)
        assert holder(folder)["token"] == mine["token"]
    assert not told
    assert holder(folder) is None


def test_a_job_kept_waiting_by_its_disk_goes_on_if_nobody_took_the_run_over(folder, monkeypatch, between):
    write, told = RunFolder.write_bytes, []

    def slowly(*arguments):
        time.sleep(0.5)
        write(*arguments)

    with lease(folder, stale=0.3, renew=0.05, lost=told.append):
        with between:
            monkeypatch.setattr(RunFolder, "write_bytes", slowly)
        beat = holder(folder)["beat"]
        wait_for(lambda: holder(folder)["beat"] > beat)
        monkeypatch.setattr(RunFolder, "write_bytes", write)
        time.sleep(0.3)
    assert not told


def test_a_job_that_took_a_run_over_keeps_it_when_the_one_before_wakes_while_writing(folder, monkeypatch, between):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.05)
    told = []
    elsewhere(folder)
    with lease(folder, stale=0.2, renew=0.1, lost=told.append):
        mine = holder(folder)["token"]
        with between:
            elsewhere(folder)  # it had looked before it was frozen
        wait_for(lambda: holder(folder)["token"] == mine)
    assert not told
    assert holder(folder) is None


@pytest.mark.parametrize("given_back", [False, True])
def test_a_job_that_was_taken_over_while_it_wrote_its_sign_of_life_sees_it_at_once(folder, monkeypatch, given_back):
    monkeypatch.setattr(module, "_here", lambda other: False)
    write, writing, go_on, told = RunFolder.write_bytes, threading.Event(), threading.Event(), []

    def frozen(folder, name, data):
        if name == FILE and not go_on.is_set():
            writing.set()
            go_on.wait(60)
        write(folder, name, data)

    with lease(folder, stale=0.3, renew=0.1, lost=told.append):
        first = holder(folder)["token"]
        monkeypatch.setattr(RunFolder, "write_bytes", frozen)
        assert writing.wait(60)
        with lease(folder, stale=0.3, renew=60.0 if given_back else 0.1):
            second = holder(folder)["token"]
            assert first != second
            if not given_back:
                go_on.set()
                wait_for(lambda: told)
                wait_for(lambda: holder(folder)["token"] == second)
        go_on.set()
        wait_for(lambda: told)
    assert len(told) == 1
    assert f"process {os.getpid()} on" in told[0]


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_that_another_holds_or_held_meanwhile_is_lost_and_told_once(folder, monkeypatch, between, gone):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.05)
    told = []
    with lease(folder, stale=0.2 if gone else 60.0, renew=0.5, lost=told.append):
        with between:
            folder.delete(FILE) if gone else elsewhere(folder)
        wait_for(lambda: told)
        time.sleep(0.5)
    assert len(told) == 1
    assert ("another job" if gone else "job train-run-1 on far") in told[0]
    assert (holder(folder) is None) == gone, "what is another's stays"
