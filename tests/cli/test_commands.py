"""Commands that need no cluster: config, data, doctor, and the demo's care for folders."""

import json

from dhdiff_ray.config import Config
from dhdiff_ray.config.base import Rank
from dhdiff_ray.config.load import ConfigError, load_config
from dhdiff_ray.run.status import STAGES


def test_config_show_tells_where_each_value_came_from(invoke):
    result = invoke("config", "show", "--preset", "tiny", "--set", "train.steps=60", "--origin")
    lines = result.stdout.splitlines()
    assert any(line.startswith("train.steps = 60") and line.endswith("# --set train.steps=60") for line in lines)
    assert any(line.startswith("data.resolution = 64") and line.endswith("# preset tiny") for line in lines)


def test_what_config_show_prints_is_a_recipe(invoke, tmp_path):
    recipe = tmp_path / "again.toml"
    recipe.write_text(invoke("config", "show", "--preset", "tiny").stdout)
    assert load_config(recipe).config == load_config(preset="tiny").config


def test_config_show_begins_with_what_a_user_turns_first_and_ends_with_research(invoke):
    first, others, research = invoke("config", "show").stdout.split("\n\n")
    assert "train.steps = " in first and first.startswith(f"# {Rank.first}")
    assert "train.learning_rate = " in others and others.startswith(f"# {Rank.ordinary}")
    assert "model.eta_start = " in research and research.startswith(f"# {Rank.research}")
    assert first.count(" = ") <= 30


def test_config_show_json_is_the_stored_form(invoke):
    values = json.loads(invoke("config", "show", "--json").stdout)
    assert Config.model_validate(values) == Config()


def test_data_list_names_licence_and_source(invoke):
    found = {entry["name"]: entry for entry in json.loads(invoke("data", "list", "--json").stdout)}
    assert found["mvtec"]["licence"].startswith("CC BY-NC-SA")


def test_data_scan_counts_images_and_masks(invoke, tmp_path):
    from dhdiff_ray.data.registry import open_dataset

    open_dataset("mvtec").example(tmp_path / "d")
    rows = json.loads(invoke("data", "scan", "--root", tmp_path / "d", "--json").stdout)["rows"]
    assert {row["defect"] for row in rows} > {"good"}
    assert all(row["masks"] == (0 if row["defect"] == "good" else row["images"]) for row in rows)


def test_doctor_tells_each_remedy_and_fails_on_a_bad_dataset(invoke, tmp_path):
    result = invoke("doctor", "--root", tmp_path / "nothing", "--weights-dir", tmp_path, "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert checks["dataset"]["state"] == "failed"
    assert checks["ray"]["state"] == "ok"
    assert checks["weights for IC-LPIPS"]["state"] == "warning"
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")


def test_doctor_finds_no_cluster_where_there_is_none(invoke):
    result = invoke("doctor", "--address", "http://127.0.0.1:1", "--json")
    assert result.exit_code == 1
    assert {c["name"]: c["state"] for c in json.loads(result.stdout)}["cluster"] == "failed"


def test_the_demo_does_not_replace_a_folder_that_is_no_run(invoke, tmp_path):
    precious = tmp_path / "runs" / "demo" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years")
    result = invoke("demo", "--storage", tmp_path / "runs")
    assert isinstance(result.exception, ConfigError)
    assert precious.read_text() == "years"


def test_the_demo_runs_the_verbs_a_cluster_would_get():
    from dhdiff_ray.on_ray.verbs import VERBS

    assert set(STAGES) <= set(VERBS)
