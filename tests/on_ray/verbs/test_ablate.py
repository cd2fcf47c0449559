import json
from types import SimpleNamespace

import pytest

from dhdiff_ray.config import AblationConfig, AblationRow
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.on_ray.verbs import ablate
from dhdiff_ray.report.ablation import REAL
from dhdiff_ray.run.run import Run

NOBODY = SimpleNamespace(emit=SimpleNamespace(remote=lambda event: None))
"""A hub that nobody reads."""


@pytest.fixture
def table(configure, images):
    config = configure("t", "train.steps=2", "synthesize.pairs_per_defect=1", "detect.steps=2")
    rows = (AblationRow(name="no-merge", set={"model.merge": "none", "model.ssm": False}), AblationRow(name="all"))
    config = config.model_copy(update={"ablation": AblationConfig(rows=rows, seeds=(3,))})
    samples = open_dataset("procedural").scan(images)
    runs = {name: Run(ablate.row_config(config, name, 3)) for name in (REAL, "no-merge", "all")}
    for run in runs.values():
        run.begin(samples)
    return config, runs


def test_a_row_is_a_run_of_its_own_that_differs_in_what_it_sets_alone(table):
    _, runs = table
    own, other = runs["no-merge"].config.model_dump(), runs["all"].config.model_dump()
    assert own["run"]["name"] == "t-no-merge-s3"
    assert own["run"]["seed"] == 3
    assert (own["model"]["merge"], other["model"]["merge"]) == ("none", "cross")
    own["model"] |= {"merge": "cross", "ssm": True}
    own["run"] = other["run"]
    assert own == other


def test_a_row_that_sets_an_unknown_key_is_refused_by_name(table):
    config, _ = table
    rows = (AblationRow(name="wrong", set={"model.merge_": "none"}),)
    config = config.model_copy(update={"ablation": AblationConfig(rows=rows)})
    with pytest.raises(ConfigError, match=r"merge_.*row wrong.*did you mean 'model.merge'"):
        ablate.row_config(config, "wrong", 0)


def test_a_cell_trains_makes_pairs_judges_them_and_is_not_run_again(table):
    _, runs = table
    oracle = ablate._cell(runs[REAL], REAL, "mesh", NOBODY, None)
    assert oracle
    ablate._cell(runs["no-merge"], "no-merge", "mesh", NOBODY, oracle)
    folder = runs["no-merge"].folder
    cell = folder.read_json("cells/mesh.json")
    assert cell["row"] == "no-merge"
    assert 0 <= cell["pixel_ap"] <= 1
    assert 0 <= cell["nonempty"] <= 1
    assert folder.exists("models/mesh/dhdiff.json")
    made = [f for f in folder.files("pairs/mesh/test") if "/good/" not in f]
    assert len(made) == 3
    folder.write_json("cells/mesh.json", {**cell, "pixel_ap": 0.125})
    ablate._cell(runs["no-merge"], "no-merge", "mesh", NOBODY, oracle)
    assert json.loads(folder.read_bytes("cells/mesh.json"))["pixel_ap"] == 0.125
