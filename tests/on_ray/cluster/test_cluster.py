"""A private cluster leaves nothing behind, however the command ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dhdiff_ray.on_ray.cluster.local import LONGEST_TEMP, STARTS, auth_env
from dhdiff_ray.on_ray.ray_private import forget_token

COMMAND = """
import sys, time
from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.local import local_cluster
from dhdiff_ray.on_ray.cluster.jobs import Jobs
with local_cluster(num_cpus=1) as cluster:
    jobs = Jobs(cluster)
    job = jobs.wait(jobs.submit("nothing_to_do", Config.model_validate({"run": {"name": "r"}})), timeout=90)
    assert job.status == "SUCCEEDED", jobs.logs(job.id)
    print(cluster.folder, *(p.pid for p in cluster.processes()), flush=True)
    time.sleep(120)
"""


@pytest.fixture
def as_it_was():
    """Ray, where it is imported, sees the environment that is there after the test."""
    yield
    forget_token()


@pytest.fixture
def no_token(as_it_was, monkeypatch):
    """An environment without a token."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that what a test puts there goes again
        monkeypatch.delenv(name)


def test_auth_env_turns_tokens_on_where_there_is_one(no_token, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    auth_env()
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / "token").write_text("t")
    auth_env()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_the_longest_socket_of_a_cluster_has_room_below_the_longest_temporary_folder():
    """A cluster below a longer one does not start, for a reason that Ray tells in its logs alone."""
    session = "session_2026-11-27_22-09-50_880716_4194304"
    path = f"{'t' * LONGEST_TEMP}/dhdiff-7uhk2je8/r{STARTS - 1}/{session}/sockets/dash_MetricsHead"
    assert len(path) <= 107


def test_auth_env_leaves_a_decision_alone(no_token, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    auth_env()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.ray
def test_two_clusters_at_once_both_take_jobs_and_every_end_is_clean(tmp_path):
    def as_in_a_terminal():  # with a process group of its own; what runs with & is started deaf to Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)

    (tmp_path / "nothing_to_do.py").write_text("def main(config, resume):\n    return 0\n")
    modules = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": modules}
    words = [sys.executable, "-c", COMMAND]
    commands, folders, started = [], [], []
    try:
        for _ in range(2):
            commands.append(
                subprocess.Popen(
                    words,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=as_in_a_terminal,
                )
            )
            folder, *pids = commands[-1].stdout.readline().split()
            folders.append(Path(folder))
            started.append([psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))])
        named = [[(p, p.name()) for p in processes if _alive(p)] for processes in started]
        assert not {p.pid for p in started[0]} & {p.pid for p in started[1]}
        assert not (tmp_path / ".ray").exists(), "nothing may be written to the home folder"

        os.killpg(commands[0].pid, signal.SIGINT)  # Ctrl-C reaches the whole group
        assert commands[0].wait(timeout=60) != 0
        assert not folders[0].exists()
        assert not [p.name() for p in started[0] if _alive(p)]
        core = [p for p, name in named[1] if name in ("gcs_server", "raylet")]
        assert len(core) == 2
        assert all(map(_alive, core)), "the other cluster goes on"

        next(p for p in core if p.name() == "gcs_server").suspend()  # Ray alone would wait for it, for minutes
        commands[1].terminate()
        assert commands[1].wait(timeout=60) != 0
        assert not folders[1].exists()
        assert not [p.name() for p in started[1] if _alive(p)]
    finally:
        for command in commands:
            command.kill()


def _alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
