"""Training on Ray: side by side, through a killed worker, with sharded optimisers, and not twice."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.on_ray.verbs import train
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.build import build, build_source
from dhdiff_ray.training.checkpoint import model_facts
from dhdiff_ray.training.loop import PlainEngine, fit, new_average


def mortal_work(settings):
    """The real work; mesh's first worker kills itself after the third step, and each tells where it starts."""
    from dhdiff_ray.on_ray.verbs import train_worker

    folder = Path(settings["run"].folder.path())
    name = settings["category"]

    def watched(*arguments, start, on_step, **named):
        with (folder / f"{name}.starts").open("a") as told:
            told.write(f"{start} ")

        def mortal_step(done, log):
            on_step(done, log)
            if (name, done, start) == ("mesh", 3, 0):
                # Ray's controller learns of a checkpoint at its next poll, seconds after three such steps are over.
                known = folder / "checkpoints" / name / "checkpoint_manager_snapshot.json"
                until = time.monotonic() + 60
                while not (known.exists() and "step_0000002" in known.read_text()) and time.monotonic() < until:
                    time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)

        return fit(*arguments, start=start, on_step=mortal_step, **named)

    train_worker.fit = watched
    train_worker.train_worker(settings)


def mortal_category(run, category, hub):
    from dhdiff_ray.on_ray.verbs import train

    train.work = mortal_work
    train.train_category(run, category, hub)


def counted_work(settings):
    """The real work; each worker that computes latents says so."""
    from dhdiff_ray.on_ray.verbs import train_worker
    from dhdiff_ray.training import cache

    folder = Path(settings["run"].folder.path())
    computed = cache._computed

    def told(*arguments):
        with (folder / "computed").open("a") as computing:
            computing.write("once ")
        return computed(*arguments)

    cache._computed = told
    train_worker.train_worker(settings)


def counted_category(run, category, hub):
    from dhdiff_ray.on_ray.verbs import train

    train.work = counted_work
    train.train_category(run, category, hub)


@pytest.fixture
def pickled_by_value():
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


def trained_here(config, category):
    """The same training without Ray and without DeepSpeed."""
    split = Run(config).category(category)
    samples, images, masks = read_many(split.train, config.data.resolution, False, print)
    parts = build(config, samples, images)
    average = new_average(parts.objective, config.train)
    source = build_source(parts, config, samples, images, masks)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=average)
    average.copy_to(parts.objective.parameters())
    return parts.objective.unet.state_dict()


@pytest.mark.ray
def test_a_category_trains_through_a_killed_worker_to_the_weights_of_an_undisturbed_run_and_only_once(
    two_cores, configure, monkeypatch, pickled_by_value
):
    config = configure("killed", "train.max_failures=1", "data.categories=['mesh']")
    folder = Run(config).folder
    monkeypatch.setattr(train, "train_category", mortal_category)
    assert train.main(config) == 0
    assert Path(folder.path("mesh.starts")).read_text().split() == ["0", "2"], "resumed from its last checkpoint"
    model = DHDiffPipeline.from_pretrained(folder.path("models/mesh"))
    expected = trained_here(config, "mesh")
    for name, weights in model.unet.state_dict().items():
        torch.testing.assert_close(weights, expected[name], atol=2e-5, rtol=1e-3, msg=name)
    assert model_facts(folder, "mesh")["steps"] == 4

    with pytest.raises(ValueError, match="add --resume"):
        train.main(config)
    before = len([e for e in read_events(folder) if e["event"] == "progress"])
    assert train.main(config, resume=True) == 0
    after = read_events(folder)
    assert len([e for e in after if e["event"] == "progress"]) == before, "nothing was trained again"
    assert (after[-1]["category"], after[-1]["done"]) == ("mesh", 4)


@pytest.mark.ray
def test_two_workers_with_a_sharded_optimiser_publish_one_model_and_compute_its_latents_once(
    two_cores, configure, monkeypatch, pickled_by_value, tmp_path
):
    vae = TinyAutoencoder()
    torch.save(vae.encoder.state_dict(), tmp_path / "taef2_encoder.pth")
    torch.save(vae.decoder.state_dict(), tmp_path / "taef2_decoder.pth")
    sets = ("train.workers=2", "train.zero_stage=2", "train.steps=2", "data.categories=['mesh']", "train.window=0",
            "model.autoencoder=taef2", f"model.autoencoder_weights={tmp_path}")  # fmt: skip
    config = configure("zero", *sets)
    monkeypatch.setattr(train, "train_category", counted_category)
    folder = Run(config).folder
    assert train.main(config) == 0
    pipeline = DHDiffPipeline.from_pretrained(folder.path("models/mesh"))
    assert all(torch.isfinite(p).all() for p in pipeline.unet.parameters())
    saved = [file.rpartition("/")[2] for file in folder.files("checkpoints/mesh/step_0000002/engine")]
    assert sum("optim_states" in name for name in saved) == 2, "each worker keeps its part of the moments"
    assert Path(folder.path("computed")).read_text().split() == ["once"]


@pytest.mark.ray
def test_a_damaged_newest_checkpoint_costs_its_steps_and_changes_no_weight(two_cores, configure):
    config = configure("damaged", "data.categories=['mesh']", "train.max_failures=0")
    folder = Run(config).folder
    assert train.main(config) == 0
    weights = folder.read_bytes("models/mesh/unet/diffusion_pytorch_model.safetensors")
    newest = Path(folder.path("checkpoints/mesh/step_0000004"))
    for damage in ("cut", "gone"):
        folder.delete("models/mesh")
        if damage == "cut":
            (states,) = newest.rglob("*model_states.pt")
            states.write_bytes(states.read_bytes()[:1000])
        else:
            shutil.rmtree(newest)
        assert train.main(config, resume=True) == 0
        assert folder.read_bytes("models/mesh/unet/diffusion_pytorch_model.safetensors") == weights
    told = [e["message"] for e in read_events(folder) if e["event"] == "warning"]
    assert any("step_0000004" in m and "is damaged" in m for m in told)
    assert any("step_0000004 is gone" in m for m in told)
