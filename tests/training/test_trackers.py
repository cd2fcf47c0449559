"""Figures of each step reach every tracker that is asked for, also through a resumed run, and secrets reach none."""

import json

import pytest

from dhdiff_ray.config.load import load_config
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.training import trackers
from dhdiff_ray.training.trackers import Trackers, public_settings, refuse_missing, without_secrets


def settings(*names):
    sets = (f"train.trackers={list(names)}", "run.name=first", "data.root=/secret/place")
    return load_config(preset="tiny", sets=sets).config


def disturbed(config, folder):
    """Steps 1 to 5, a death, then steps 4 to 6 from the checkpoint at 3."""
    first = Trackers(Run(config, folder), "mesh", 0)
    for done in range(1, 6):
        first.log(done, {"loss": done / 4, "learning_rate": 0.5})
        if done == 3:
            first.flush()
    first.close()
    second = Trackers(Run(config, folder), "mesh", 3)
    for done in range(4, 7):
        second.log(done, {"loss": done / 4, "learning_rate": 0.5})
    second.close()
    return [done / 4 for done in range(1, 7)]


def rows(folder):
    return [json.loads(line) for line in folder.read_bytes("metrics/mesh.jsonl").splitlines()]


def test_json_lines_hold_each_step_once_after_a_death_even_in_the_middle_of_a_line(tmp_path):
    folder = RunFolder.of(str(tmp_path), "first")
    losses = disturbed(settings(), folder)
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows(folder)] == losses
    folder.write_bytes("metrics/mesh.jsonl", folder.read_bytes("metrics/mesh.jsonl")[:-20])
    Trackers(Run(settings(), folder), "mesh", 6).close()
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5]


def test_tensorboard_shows_each_step_once(tmp_path):
    pytest.importorskip("tensorboard", reason="comes with the extra: tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder.of(str(tmp_path), "first")
    losses = disturbed(settings("tensorboard"), folder)
    seen = EventAccumulator(folder.path("tensorboard/mesh"))
    seen.Reload()
    assert [event.step for event in seen.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in seen.Scalars("loss")] == pytest.approx(losses)
    assert set(seen.Tags()["scalars"]) == {"loss", "learning_rate"}


def test_mlflow_holds_each_step_once_in_one_run_without_paths(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="comes with the extra: mlflow")
    pytest.importorskip("sqlalchemy", reason="MLflow keeps a local database with it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    losses = disturbed(settings("mlflow"), RunFolder.of(str(tmp_path), "first"))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("dhdiff-ray").experiment_id])
    history = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda m: m.step)
    assert [(m.step, m.value) for m in history] == list(enumerate(losses, 1))
    assert run.info.status == "FINISHED"
    assert run.data.params["run.name"] == "first"
    assert "/secret/place" not in str(run.to_dictionary())


def test_wandb_goes_on_under_one_id_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="comes with the extra: wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = RunFolder.of(str(tmp_path), "first")
    disturbed(settings("wandb"), folder)
    kept = [name for name in folder.files("wandb") if name.endswith(".wandb")]
    assert {name.rpartition("/")[2] for name in kept} == {"run-first-mesh.wandb"}
    assert all(b"/secret/place" not in folder.read_bytes(name) for name in kept)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"pip install 'dhdiff-ray\[{name}\]'"):
        refuse_missing([name])


class Broken:
    """A tracker whose service goes away after a step."""

    def __init__(self, *_):
        self.closed = False

    def log(self, done, figures):
        if done == 2:
            raise ConnectionError("no answer from https://me:hunter2@lab.example/api with key k3y")

    def flush(self): ...

    def close(self): ...


def test_a_tracker_that_breaks_is_told_once_without_secrets_and_costs_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "refuse_missing", lambda _: None)
    monkeypatch.setitem(trackers.KINDS, "wandb", Broken)
    monkeypatch.setenv("WANDB_API_KEY", "k3y")
    told = []
    folder = RunFolder.of(str(tmp_path), "first")
    tracked = Trackers(Run(settings("wandb"), folder), "mesh", 0, lambda **event: told.append(event))
    for done in range(1, 5):
        tracked.log(done, {"loss": 1.0})
    tracked.close()
    assert len(rows(folder)) == 4
    (event,) = told
    assert event["event"] == "warning"
    assert "wandb is left out" in event["message"]
    assert "hunter2" not in event["message"]
    assert "k3y" not in event["message"]


def test_a_tracker_that_does_not_start_is_an_error_with_what_to_do(tmp_path, monkeypatch):
    def refuses(*_):
        raise RuntimeError("no key for https://me:hunter2@lab.example")

    monkeypatch.setattr(trackers, "refuse_missing", lambda _: None)
    monkeypatch.setitem(trackers.KINDS, "mlflow", refuses)
    with pytest.raises(ValueError, match=r"mlflow did not start .*leave mlflow out of train\.trackers") as caught:
        Trackers(Run(settings("mlflow"), RunFolder.of(str(tmp_path), "first")), "mesh", 0)
    assert "hunter2" not in str(caught.value)


def test_trackers_are_told_no_place_and_change_no_digest():
    config = settings("tensorboard")
    assert "/secret/place" not in json.dumps(public_settings(config, "mesh"))
    assert config.digest() == settings().digest()
    assert without_secrets("sqlite:////a/b.db") == "sqlite:////a/b.db"
