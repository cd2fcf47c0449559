"""A node that goes away costs time and nothing else."""

import itertools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dhdiff_ray.on_ray.verbs import synthesize, train
from dhdiff_ray.pairs.units import units_of
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A node counts as lost after two seconds instead of half a minute."""

WEIGHTS = "models/mesh/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def three_nodes(monkeypatch):
    """A head without cores and two nodes of two cores each, this process connected."""
    import ray
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster

    from dhdiff_ray.on_ray.cluster.local import JOB_ENVIRONMENT

    for name, value in (JOB_ENVIRONMENT | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers starve where a machine has other work
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="dhc-", dir="/tmp") as folder:
        head = {"num_cpus": 0, "temp_dir": folder, "object_store_memory": 150 * 2**20, "_system_config": FAST}
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # the head writes its address there all the same
        cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        reset_ray_address()  # else every Ray on this machine would join it
        for _ in range(2):
            cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def made(folder):
    names = [n for n in folder.files("pairs") if n.endswith(".png") and "/good/" not in n]
    return {name: folder.read_bytes(name) for name in names}


def in_thread(work):
    """Run in a thread, so that nodes can be taken away from the main one; returns the thread and its answer."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(work()), daemon=True)
    thread.start()
    return thread, answer


def wait_for(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.2)


def test_pairs_of_a_run_that_lost_a_node_are_those_of_an_undisturbed_one(three_nodes, trained):
    config = trained("synthesize.workers=4", "synthesize.pairs_per_defect=16", "synthesize.steps=40")
    folder = Run(config).folder
    thread, answer = in_thread(lambda: synthesize.main(config))
    wait_for(lambda: len(made(folder)) >= 4)
    three_nodes.remove_node(sorted(three_nodes.worker_nodes, key=str)[0], allow_graceful=False)
    thread.join(300)
    assert answer == [0]
    found = made(folder)
    assert len(found) == 6 * 16 * 2
    assert all(len(read_pair_rows(folder, category)) == 48 for category in ("capsule", "mesh"))

    alone = RunFolder(folder.uri + "-alone")
    alone.write_json("split.json", folder.read_json("split.json"))
    for category in ("capsule", "mesh"):
        alone.upload(folder.path(f"models/{category}"), f"models/{category}")
    run = Run(config, alone)
    maker = synthesize.Maker(run)
    for category in ("capsule", "mesh"):
        for unit in units_of(run, category, {})[1]:
            maker(unit)
    assert found == made(alone), "one process that nobody disturbed makes the same bytes"


def test_weights_of_a_run_that_lost_its_workers_node_are_those_of_an_undisturbed_one(three_nodes, configure):
    import ray

    sets = ("data.categories=['mesh']", "train.steps=60", "train.checkpoint_every=10", "train.max_failures=2")
    config = configure("disturbed", *sets)
    folder = Run(config).folder
    thread, answer = in_thread(lambda: train.main(config))
    snapshot = Path(folder.path("checkpoints/mesh/checkpoint_manager_snapshot.json"))
    wait_for(lambda: snapshot.exists() and "step_" in snapshot.read_text())
    busy = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    free = ray._private.state.available_resources_per_node()
    at = min(busy, key=lambda node: free.get(node["NodeID"], {}).get("CPU", 0.0))["NodeID"]
    (node,) = [n for n in three_nodes.worker_nodes if n.node_id == at]
    three_nodes.remove_node(node, allow_graceful=False)
    three_nodes.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    thread.join(400)
    assert answer == [0]
    calm = configure("calm", *sets)
    assert train.main(calm) == 0
    assert folder.read_bytes(WEIGHTS) == Run(calm).folder.read_bytes(WEIGHTS)


def held_work(settings):
    """The real work; the first group and one of a single worker wait, each at a step of its own, for what befalls."""
    from dhdiff_ray.on_ray.verbs import train_worker

    fit = train_worker.fit

    def held(*arguments, start, world_size, on_step, **named):
        at = 12 if start == 0 else 25 if world_size == 1 else 0

        def held_step(done, log):
            on_step(done, log)
            if done == at and settings["run"].config.run.name == "elastic":  # the process serves the calm run too
                time.sleep(900)

        return fit(*arguments, start=start, world_size=world_size, on_step=held_step, **named)

    train_worker.fit = held
    train_worker.train_worker(settings)


def held_category(run, category, hub):
    from dhdiff_ray.on_ray.verbs import train

    train.work = held_work
    train.train_category(run, category, hub)


def test_an_elastic_run_shrinks_with_a_lost_node_grows_again_and_ends_as_an_undisturbed_one(
    three_nodes, configure, monkeypatch
):
    from ray import cloudpickle

    sets = ("data.categories=['mesh']", "train.steps=40", "train.checkpoint_every=10", "train.max_failures=3",
            "train.zero_stage=2", "train.cpus_per_worker=2", "train.clean_background=0.5")  # fmt: skip
    config = configure("elastic", *sets, "train.workers=[1,2]", "train.resize_seconds=5")
    folder = Run(config).folder
    snapshot = Path(folder.path("checkpoints/mesh/checkpoint_manager_snapshot.json"))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    calm_category = train.train_category
    monkeypatch.setattr(train, "train_category", held_category)
    moments = [time.monotonic()]

    def groups():
        told = read_events(folder) if folder.exists("events.jsonl") else []
        return [(e["workers"], e["done"]) for e in told if e["event"] == "workers"]

    thread, answer = in_thread(lambda: train.main(config))
    wait_for(lambda: snapshot.exists() and "step_0000010" in snapshot.read_text(), 600)
    moments.append(time.monotonic())
    three_nodes.remove_node(sorted(three_nodes.worker_nodes, key=str)[0], allow_graceful=False)
    wait_for(lambda: len(groups()) == 2, 600)
    moments.append(time.monotonic())
    wait_for(lambda: "step_0000020" in snapshot.read_text(), 600)
    moments.append(time.monotonic())
    three_nodes.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    wait_for(lambda: len(groups()) == 3, 600)
    moments.append(time.monotonic())
    thread.join(600)
    assert answer == [0]
    assert groups() == [(2, 0), (1, 10), (2, 20)]

    monkeypatch.setattr(train, "train_category", calm_category)
    calm = configure("calm", *sets)
    assert train.main(calm) == 0
    both = [Run(c).folder for c in (config, calm)]
    mine, theirs = ([json.loads(row) for row in f.read_bytes("metrics/mesh.jsonl").splitlines()] for f in both)
    assert [row["step"] for row in mine] == [row["step"] for row in theirs] == list(range(1, 41))
    assert [row["workers"] for row in mine] == [2] * 10 + [1] * 10 + [2] * 20
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(mine, theirs, strict=True))
    one, two = (load_file(f.path(WEIGHTS)) for f in both)
    weights = max(float((one[name] - two[name]).abs().max()) for name in two)
    seconds = [round(b - a, 1) for a, b in itertools.pairwise(moments)]
    print(f"losses {apart:.2e} and weights {weights:.2e} apart at most; start, shrink, step 20, grow: {seconds} s")
    assert apart < 1e-5
    assert weights < 1e-4
