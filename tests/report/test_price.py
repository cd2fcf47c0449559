"""What a job costs is told from what a like run was measured at, or not at all."""

import json

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.report.price import measured, price, told


@pytest.fixture
def configure(tmp_path):
    def make(run, *sets):
        return load_config(preset="tiny", sets=(f'run.storage="{tmp_path}"', f"run.name={run}", *sets)).config

    return make


def lay_down(tmp_path, config, events):
    folder = tmp_path / config.run.name
    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def step(done, time):
    return {"event": "progress", "verb": "train", "category": "mesh", "done": done, "total": 100, "time": time}


def test_units_and_pairs_are_counted_without_any_run(configure):
    config = configure("new", "train.steps=100", "synthesize.pairs_per_defect=20", "synthesize.shard_size=8")
    cost = price(config, {"mesh": 3, "capsule": 2})
    assert (cost["categories"], cost["training_steps"], cost["pairs"], cost["units"]) == (2, 200, 100, 15)
    assert cost["pair_disk_bytes"] > 100 * 64 * 64 * 3
    assert "100 pairs in 15 units, at most 1.5 MB" in told(cost)[1]
    assert cost["train_worker_hours"] is None
    assert "no run like this was measured" in told(cost)[-1]


def test_hours_come_from_a_run_of_the_same_network_and_size(tmp_path, configure):
    made = {"event": "progress", "verb": "synthesize", "category": "mesh", "made": 8, "seconds": 4.0, "time": 9}
    lay_down(tmp_path, configure("old"), [step(1, 10.0), step(11, 12.0), step(21, 14.0), made])
    config = configure("new", "train.steps=1800", "synthesize.pairs_per_defect=72")
    assert measured(config) == {"run": "old", "seconds_per_step": 0.2, "seconds_per_pair": 0.5}
    cost = price(config, {"mesh": 1})
    assert cost["train_worker_hours"] == pytest.approx(0.1)
    assert cost["synthesize_worker_hours"] == pytest.approx(0.01)
    assert "run old" in told(cost)[-1]


def test_latents_that_are_encoded_before_training_are_no_steps(tmp_path, configure):
    latents = [step(done, float(done)) | {"category": "mesh, latents"} for done in range(1, 9)]
    lay_down(tmp_path, configure("old"), [*latents, step(1, 10.0), step(11, 12.0)])
    assert measured(configure("new"))["seconds_per_step"] == 0.2


def test_a_run_of_another_size_tells_nothing(tmp_path, configure):
    lay_down(tmp_path, configure("old", "data.resolution=32"), [step(1, 10.0), step(11, 12.0)])
    assert measured(configure("new")) == {}
