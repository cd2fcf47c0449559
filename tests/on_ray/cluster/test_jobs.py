"""Real jobs on one real private cluster: submit, follow, exit codes, stop."""

import json
import os
import subprocess
import sys

import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.cluster.checks import resources
from dhdiff_ray.on_ray.cluster.jobs import JobInfo, Jobs, absolute
from dhdiff_ray.on_ray.cluster.local import ClusterError, local_cluster
from dhdiff_ray.run.events import REFUSED

VERB = """
import sys, time
from pathlib import Path
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.run.folder import RunFolder

def main(config, resume):
    name = config.run.name
    with Events(RunFolder.of(config.run.storage, name), "tiny_verb") as events, events.hub(every=0.1) as hub:
        events.emit("start", resume=resume)
        hub.emit.remote({"event": "progress", "category": "bottle", "done": 1, "total": 2})
        if name == "sleeps":
            time.sleep(120)
        if name == "ships":
            assert Path(config.data.dataset).read_text() == "# mine", config.data.dataset
    if name == "refused":
        raise ConfigError("that is not it")
    if name == "user":
        raise ValueError("no masks in /images; pass another --root")
    return 0
"""


def info(status, driver_exit_code=None):
    return JobInfo("id", "train", "run", status, driver_exit_code, "", None, None, {})


def test_exit_codes_tell_failed_from_stopped_from_refused():
    assert info("SUCCEEDED", 0).exit_code == 0
    assert info("FAILED", 1).exit_code == 3
    assert info("FAILED", None).exit_code == 3
    assert info("FAILED", REFUSED).exit_code == 2
    assert info("FAILED", 2).exit_code == 3, "a library's exit is no refusal"
    assert info("STOPPED").exit_code == 4


def test_local_paths_are_made_absolute_and_uris_are_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = absolute(Config.model_validate({"data": {"root": "images", "dataset": "mine.py"}}))
    assert config.run.storage == str(tmp_path / "runs")
    assert config.data.root == str(tmp_path / "images")
    assert config.data.dataset == str(tmp_path / "mine.py")
    remote = absolute(Config.model_validate({"run": {"storage": "s3://b/runs"}, "data": {"root": "gs://b/images"}}))
    assert (remote.run.storage, remote.data.root, remote.data.dataset) == ("s3://b/runs", "gs://b/images", "mvtec")


def test_a_verb_asks_for_its_workers_at_once():
    config = Config.model_validate({"train": {"workers": 2, "gpus_per_worker": 1}})
    assert resources("train", config) == {"workers": 2, "CPU": 1, "GPU": 1}
    assert resources("synthesize", config)["workers"] == 1
    elastic = Config.model_validate({"train": {"workers": [2, 4], "gpus_per_worker": 1}})
    assert resources("train", elastic)["workers"] == 2, "with the least it makes progress"
    assert resources("score", config) == {}


def test_nobody_at_the_address_is_a_cluster_error_that_says_what_to_type():
    with pytest.raises(ClusterError, match=r"dhdiff-ray doctor --address http://127\.0\.0\.1:1"):
        Jobs("127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    modules = tmp_path_factory.mktemp("modules")
    (modules / "tiny_verb.py").write_text(VERB)
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(modules), os.environ.get("PYTHONPATH")))))
    with local_cluster(num_cpus=2) as running:
        yield running
    patch.undo()


def config_for(name, tmp_path):
    return Config.model_validate({"run": {"name": name, "storage": str(tmp_path)}})


@pytest.mark.ray
def test_jobs_are_followed_to_their_end_and_leave_what_happened(cluster, tmp_path):
    jobs = Jobs(cluster)
    ids = {n: jobs.submit("tiny_verb", config_for(n, tmp_path)) for n in ("works", "user", "refused")}

    lines = list(jobs.follow(ids["works"]))
    done = jobs.wait(ids["works"])
    assert (done.exit_code, done.verb, done.run) == (0, "tiny_verb", "works"), lines
    assert done.metadata["config_digest"] == config_for("works", tmp_path).digest()
    events = [json.loads(line.removeprefix("@event ")) for line in lines if line.startswith("@event ")]
    assert [event["event"] for event in events] == ["start", "progress"]
    assert events[1]["category"] == "bottle"
    written = (tmp_path / "works" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == events

    told = [line for line in jobs.follow(ids["user"]) if "no masks in /images" in line]
    assert len(told) == 1
    assert told[0].startswith("@event ")
    assert jobs.wait(ids["user"]).exit_code == 3
    assert jobs.wait(ids["refused"], timeout=120).exit_code == 2, jobs.logs(ids["refused"])
    assert {job.id for job in jobs.list()} >= set(ids.values())

    with pytest.raises(ValueError, match="already submitted"):
        jobs.submit("tiny_verb", config_for("works", tmp_path), job_id=ids["works"])


@pytest.mark.ray
def test_a_cluster_that_is_not_ours_gets_the_package_and_the_loader(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # an address that was given wins over the variable
    (tmp_path / "mine.py").write_text("# mine")
    values = {"run": {"name": "ships", "storage": str(tmp_path)}, "data": {"dataset": str(tmp_path / "mine.py")}}
    jobs = Jobs(cluster.address)
    job = jobs.submit("tiny_verb", Config.model_validate(values))
    lines = list(jobs.follow(job))
    assert jobs.wait(job, timeout=60).exit_code == 0, lines


@pytest.mark.ray
def test_what_the_cluster_cannot_hold_is_refused_instead_of_pending(cluster, tmp_path):
    jobs = Jobs(cluster)
    values = {"run": {"name": "big", "storage": str(tmp_path)}, "train": {"workers": 3}}
    with pytest.raises(ConfigError, match=r"3 worker\(s\) with 1 CPU each; the cluster has 2 CPU"):
        jobs.submit("train", Config.model_validate(values))
    with pytest.raises(ValueError, match="no job 'nope'"):
        jobs.status("nope")


@pytest.mark.ray
def test_a_wrong_token_is_refused_with_the_remedy(cluster):
    environment = os.environ | {"RAY_AUTH_TOKEN": "0" * 64, "NO_COLOR": "1"}
    words = [sys.executable, "-m", "dhdiff_ray", "jobs", "list", "--address", cluster.address]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert cluster.address in done.stderr


@pytest.mark.ray
def test_ctrl_c_detaches_from_somebody_elses_cluster_and_stops_a_job_on_ours(cluster, tmp_path, capsys):
    import typer

    from dhdiff_ray.cli.follow import attend
    from dhdiff_ray.cli.output import Output

    jobs = Jobs(cluster.address)
    job = Jobs(cluster).submit("tiny_verb", config_for("sleeps", tmp_path))

    next(line for line in jobs.follow(job) if line.startswith("@event "))

    class Interrupted(Jobs):
        def follow(self, job_id):
            yield from ()
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as left:
        attend(Interrupted(cluster.address), job, Output())
    assert left.value.exit_code == 130
    assert f"jobs stop {job} --address {jobs.address}" in capsys.readouterr().err
    assert jobs.status(job).status in ("PENDING", "RUNNING")
    with pytest.raises(typer.Exit):
        attend(Interrupted(cluster), job, Output())
    assert jobs.wait(job).exit_code == 4
    assert not jobs.stop(job)
