"""What a job costs is told from what a like run was measured at, or not at all."""

import json

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.report.price import PLAN, measured, plan_of, planned, price, spent, told
from dhdiff_ray.report.tables import cost_table
from dhdiff_ray.run.run import Run

MADE = {"event": "progress", "verb": "synthesize", "category": "mesh", "made": 8, "seconds": 4.0, "time": 9}


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
    assert "100 pairs in 15 units, at most 1.5 MB in 215 files" in told(cost)[1]
    assert cost["train_worker_hours"] is None
    assert "no run like this was measured" in told(cost)[-1]


def test_archives_are_few_units_of_three_files_each(configure):
    archived = ("synthesize.layout=webdataset", "synthesize.pairs_per_defect=1000", "synthesize.shard_size=8")
    cost = price(configure("new", *archived), {"mesh": 3, "capsule": 2})
    assert (cost["pairs"], cost["units"], cost["pair_objects"]) == (5000, 10, 30)
    large = price(configure("new", *archived, "data.resolution=512"), {"mesh": 1})
    assert large["units"] == 4, "304 of the largest pairs of this size are surely below 256 MB"


def test_hours_come_from_a_run_of_the_same_network_and_size(tmp_path, configure):
    lay_down(tmp_path, configure("old"), [step(1, 10.0), step(11, 12.0), step(21, 14.0), MADE])
    config = configure("new", "train.steps=1800", "synthesize.pairs_per_defect=72")
    assert measured(config) == {"run": "old", "seconds_per_step": 0.2, "seconds_per_pair": 0.5}
    cost = price(config, {"mesh": 1})
    assert cost["train_worker_hours"] == pytest.approx(0.1)
    assert cost["synthesize_worker_hours"] == pytest.approx(0.01)
    assert "run old" in told(cost)[-2]


def test_a_neighbour_whose_configuration_is_none_stops_nobody(tmp_path, configure):
    for at, content in enumerate(("[1]", '{"model": null, "data": null}', "{")):
        lay_down(tmp_path, configure(f"odd{at}"), [])
        (tmp_path / f"odd{at}" / "config.json").write_text(content)
    lay_down(tmp_path, configure("old"), [step(1, 10.0), step(11, 12.0)])
    assert measured(configure("new"))["run"] == "old"


def test_what_lies_between_two_jobs_is_no_training(tmp_path, configure):
    begun = {"event": "start", "verb": "train", "category": "mesh", "time": 9000.0}
    events = [step(1, 10.0), step(11, 12.0), begun, step(12, 9001.0), step(22, 9003.0)]
    assert spent(configure("old"), events)["train_worker_hours"] == round(4 / 3600, 3)


def test_a_job_is_planned_at_what_it_is_asked_for(paired):
    one, both = (plan_of(Run(paired(*sets))) for sets in (["data.categories=['mesh']"], []))
    assert (one["categories"], both["categories"]) == (1, 2)
    assert one["pairs"] < both["pairs"]


def test_latents_that_are_encoded_before_training_are_no_steps(tmp_path, configure):
    latents = [step(done, float(done)) | {"category": "mesh, latents"} for done in range(1, 9)]
    lay_down(tmp_path, configure("old"), [*latents, step(1, 10.0), step(11, 12.0)])
    assert measured(configure("new"))["seconds_per_step"] == 0.2


def test_a_run_of_another_size_tells_nothing(tmp_path, configure):
    lay_down(tmp_path, configure("old", "data.resolution=32"), [step(1, 10.0), step(11, 12.0)])
    assert measured(configure("new")) == {}


def test_money_is_of_gpu_hours_and_of_core_hours_where_no_gpu_is_asked_for(tmp_path, configure):
    sets = ("train.steps=1800", "synthesize.pairs_per_defect=72")
    for name, gpus in (("cores", 0), ("cards", 2)):
        more = (f"train.gpus_per_worker={gpus}", f"synthesize.gpus_per_worker={gpus}", "train.cpus_per_worker=4")
        lay_down(tmp_path, configure(name, *more), [step(1, 10.0), step(11, 12.0), MADE])
        cost = price(configure("new", *sets, *more), {"mesh": 1}, hourly=10)
        assert cost["cpu_hours"] == pytest.approx(0.1 * 4 + 0.01)
        assert cost["gpu_hours"] == pytest.approx(gpus * 0.11)
        assert cost["money"] == pytest.approx(10 * (cost["gpu_hours"] or cost["cpu_hours"]))
        assert f"{cost['money']:.2f} at the price given" in told(cost)[-1]


def test_a_run_that_samples_otherwise_tells_nothing(tmp_path, configure):
    lay_down(tmp_path, configure("old", "synthesize.steps=7"), [MADE])
    assert measured(configure("new")) == {}


def test_the_report_tells_what_was_planned_beside_what_was_spent(configure):
    config = configure("new", "train.workers=2")
    events = [{"event": PLAN, "pairs": 8, "train_worker_hours": 0.25}, step(1, 10.0), step(11, 1810.0), MADE]
    assert spent(config, events)["train_worker_hours"] == pytest.approx(2 * 1800 / 3600)
    rows = {row[0]: row[1:] for row in cost_table(config, events).rows}
    assert rows["training, worker hours"] == ["0.250", "1.000"]
    assert rows["pairs"] == ["8", "8"]
    assert cost_table(config, []) is None


def test_a_job_that_goes_on_is_held_to_the_plan_it_began_with():
    plans = [{"event": PLAN, "pairs": pairs, "cpu_hours": hours} for pairs, hours in ((8, 3.0), (40, 1.0), (40, 2.0))]
    assert planned(plans)["cpu_hours"] == 1.0
    assert planned([]) == {}
