"""Clients, drivers and heads of real jobs are killed: the job goes on, or the same command does.

Which test tries which fault (all but those in brackets run by ``make chaos``):

| fault | tried by |
|---|---|
| a training worker is killed | [test_train_job, killed worker] and, with its node, test_chaos_nodes, weights |
| a training's step hangs; its worker is frozen | test_chaos_processes, stuck; [test_deadline] |
| a training's driver is killed | test_chaos_processes, killed driver |
| a node is lost while training, while making pairs | test_chaos_nodes, weights and pairs |
| samplers are killed three times in one run | test_chaos_processes, three kills |
| a job's driver is killed | here, driver and head; benchmarks.killed, whole line |
| a unit that always fails, or kills its process | [test_synthesize, deaths and failed units] |
| a category with a broken file: others go on, table, JSON and page name it, rerun | [test_line] |
| the same through the command: exit code 3, then 0 after repair | here, broken category |
| a file of a run cut, emptied, flipped, miscounted, deleted, renamed, another product's | [test_damages, test_intact] |
| disk full while pairs are written, while a checkpoint is; read-only storage | test_chaos_disks |
| two submissions at once, to one cluster; to two | here, client; [test_lease] |
| Ctrl-C | [test_jobs, ctrl_c; test_cluster, every end] |
| a client is killed, and comes back | here, client |
| the head is killed | here, driver and head; benchmarks.killed, its own private head |
| a frozen job whose run was taken over | [test_lease] |
| no token, a wrong one, another Ray, no GPU, nobody at the address | test_doors, each within 10 s |
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dhdiff_ray.on_ray.cluster import standing
from dhdiff_ray.on_ray.verbs import synthesize
from dhdiff_ray.pairs.units import units_of
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
SETS = ("synthesize.workers=2", "synthesize.pairs_per_defect=12", "synthesize.steps=40")


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers starve where a machine has other work
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    yield
    standing.down()


def made(folder):
    names = [n for n in folder.files("pairs") if n.endswith(".png") and "/good/" not in n]
    return {name: folder.read_bytes(name) for name in names}


def made_alone(config):
    """The bytes that one process makes which nobody disturbs."""
    folder = Run(config).folder
    alone = RunFolder(folder.uri + "-alone")
    alone.write_json("split.json", folder.read_json("split.json"))
    run = Run(config, alone)
    maker = synthesize.Maker(run)
    for category in ("capsule", "mesh"):
        alone.upload(folder.path(f"models/{category}"), f"models/{category}")
        for unit in units_of(run, category, {})[1]:
            maker(unit)
    return made(alone)


def command(*words):
    return [sys.executable, "-m", "dhdiff_ray", *words, "--address", "local"]


def submit(config, *more):
    words = ["submit", "synthesize", "--run", "trained", "--storage", config.run.storage, *more]
    for value in SETS:
        words += ["--set", value]
    return command(*words)


def asked(*words):
    """What a command says as JSON."""
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def begun(config, more=4):
    """The job's client, once it has made some pairs more."""
    folder, there = Run(config).folder, len(made(Run(config).folder))
    client = subprocess.Popen(
        submit(config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    limit = time.monotonic() + 400
    while len(made(folder)) < there + more:
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.2)
    return client


def times(folder):
    """When each file was written."""
    return {name: Path(folder.path(name)).stat().st_mtime_ns for name in made(folder)}


def test_a_job_outlives_its_client_and_the_same_command_attaches_to_it(own_state, trained):
    config = trained(*SETS)
    folder = Run(config).folder
    standing.up(num_cpus=2)
    client = begun(config)
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    (job,) = asked(*command("jobs", "list"))
    assert job["status"] == "RUNNING"

    other = subprocess.run(
        command("submit", "score", "--run", "trained", "--storage", config.run.storage), capture_output=True, text=True
    )
    assert other.returncode == 2, "another verb on the same run is refused"
    assert f"jobs logs --follow {job['id']}" in other.stderr

    again = subprocess.run(submit(config, "--json"), capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    assert f"job {job['id']} does this already; following it" in again.stderr
    assert json.loads(again.stdout)["job"]["id"] == job["id"]
    assert len(asked(*command("jobs", "list"))) == 1
    assert made(folder) == made_alone(config)

    by_job = asked(*command("jobs", "status", job["id"]))["categories"]
    words = ("jobs", "status", "--run", "trained", "--storage", config.run.storage)
    assert by_job == asked(sys.executable, "-m", "dhdiff_ray", *words)["categories"], "the same table from everywhere"
    assert {own["synthesize"]["state"] for own in by_job.values()} == {"done"}


def test_after_its_driver_and_then_its_head_were_killed_the_same_command_makes_what_is_missing(own_state, trained):
    config = trained(*SETS)
    folder = Run(config).folder
    there = standing.up(num_cpus=2)
    client = begun(config)
    (driver,) = [p for p in there.processes() if {"dhdiff_ray.on_ray", "synthesize"} <= set(p.cmdline())]
    driver.kill()
    client.communicate(timeout=300)
    assert client.returncode == 3, "the job failed"
    first = times(folder)

    client = begun(config)
    (head,) = [p for p in there.processes() if p.name() == "gcs_server"]
    head.kill()
    told = client.communicate(timeout=400)[1]
    assert client.returncode == 5, told
    assert "Traceback" not in told
    standing.down()
    assert not there.folder.exists(), "a dead cluster leaves no folder either"
    second = times(folder)
    assert first.items() <= second.items(), "what was there was left alone"

    standing.up(num_cpus=2)
    last = subprocess.run(submit(config), capture_output=True, text=True, timeout=400)
    assert last.returncode == 0, last.stderr
    assert second.items() < times(folder).items()
    assert made(folder) == made_alone(config)


def test_a_broken_category_gives_exit_code_3_and_its_name_and_the_same_command_after_repair_0(own_state, trained):
    config = trained()
    folder = Run(config).folder
    folder.write_json("config.json", config.model_dump(mode="json"))
    weights = Path(folder.path("models/capsule/unet/diffusion_pytorch_model.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    standing.up(num_cpus=2)
    line = command("submit", "synthesize", "--run", "trained", "--storage", config.run.storage)

    broken = subprocess.run(line, capture_output=True, text=True, timeout=400)
    assert broken.returncode == 3, broken.stderr
    words = ("jobs", "status", "--run", "trained", "--storage", config.run.storage)
    said = asked(sys.executable, "-m", "dhdiff_ray", *words)["categories"]
    assert said["mesh"]["synthesize"]["state"] == "done"
    assert said["capsule"]["synthesize"]["state"] == "failed"
    assert "the model of 'capsule' in" in said["capsule"]["synthesize"]["message"]
    assert "is damaged" in said["capsule"]["synthesize"]["message"]

    weights.write_bytes(whole)
    before = times(folder)
    mended = subprocess.run(line, capture_output=True, text=True, timeout=400)
    assert mended.returncode == 0, mended.stderr
    assert before.items() < times(folder).items(), "only what was missing was made"
    assert made(folder) == made_alone(config)
