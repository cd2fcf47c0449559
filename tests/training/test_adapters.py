"""A product that is adapters over a foundation: what lies in its folder, and what opening it gives."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.pairs import published
from dhdiff_ray.pairs.published import as_whole, open_model
from dhdiff_ray.report.health import faults_of
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.foundation import ADAPTERS, foundation_of
from dhdiff_ray.run.run import Run
from dhdiff_ray.serving.questions import PairQuery
from dhdiff_ray.serving.sampler import SamplerCore
from dhdiff_ray.training.build import build, build_source
from dhdiff_ray.training.checkpoint import publish
from dhdiff_ray.training.loop import PlainEngine, fit

LORA = ("model.backbone=trained/capsule", "train.adapt=lora", "train.lora_rank=2", "synthesize.background=keep")


@pytest.fixture(scope="module")
def adapted(trained_once, images, load_run, tmp_path_factory):
    """A storage with a foundation, the run ``adapted`` of two products over it, and each one as it was trained."""
    storage = tmp_path_factory.mktemp("adapted")
    shutil.copytree(trained_once, storage / "trained")
    shutil.copytree(trained_once, storage / "adapted", ignore=shutil.ignore_patterns("models"))
    run, kept = Run(load_run(storage, images, "adapted", *LORA)), {}
    run.write_config()
    for category in ("capsule", "mesh"):
        pictures = read_many(run.category(category).train, 32, False, print)
        kept[category] = parts = build(run.config, *pictures[:2])
        fit(PlainEngine(parts.objective, run.config.train), build_source(parts, run.config, *pictures),
            run.config.train, average=None)  # fmt: skip
        publish(parts, None, run, category, {**run.training_facts(category, 4)})
    return storage, run.config, kept


@pytest.fixture
def storage(adapted, tmp_path, monkeypatch):
    """A copy to be changed at will, where no foundation is held in memory."""
    monkeypatch.setattr(published, "_HELD", {})
    shutil.copytree(adapted[0], tmp_path / "runs")
    return tmp_path / "runs"


def draw(pipeline):
    return pipeline(defect="x", seed=3, output_type="pt", num_inference_steps=2).images


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def opened(adapted, category):
    return open_model(adapted[0] / "adapted/models" / category, adapted[1])


def test_a_product_s_folder_holds_its_adapters_and_names_its_foundation(adapted):
    folder = adapted[0] / "adapted/models/mesh"
    weights = list(folder.rglob("*.safetensors"))
    assert weights == [folder / ADAPTERS]
    whole = (adapted[0] / "trained/models/mesh/unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert weights[0].stat().st_size < whole / 2
    assert json.loads((folder / "dhdiff.json").read_text())["foundation"] == foundation_of(adapted[1]).about
    assert not any(str(adapted[0]) in file.read_text() for file in folder.rglob("*.json"))


def test_it_draws_what_was_trained_and_two_of_them_hold_the_foundation_once(adapted):
    mesh = opened(adapted, "mesh")
    alone = draw(mesh)
    capsule = opened(adapted, "capsule")
    assert torch.equal(alone, draw(adapted[2]["mesh"].pipeline()))
    assert torch.equal(draw(capsule), draw(adapted[2]["capsule"].pipeline()))
    assert torch.equal(draw(mesh), alone), "another product beside it changes no bit"
    mine, other = ({t.data_ptr(): t.nbytes for m in (p.unet, p.text_encoder) for t in m.parameters()}
                   for p in (mesh, capsule))  # fmt: skip
    stored = published.load_file(adapted[0] / "adapted/models/mesh" / ADAPTERS)
    assert sum(size for place, size in mine.items() if place not in other) == sum(t.nbytes for t in stored.values())


def test_a_replica_draws_the_same_bytes_whatever_else_it_holds(adapted):
    both, one = SamplerCore(adapted[1]), SamplerCore(adapted[1])
    query = PairQuery(category="mesh", defect="bent", seed=5, steps=2)
    both.pairs(PairQuery(category="capsule", defect="crack", seed=5, steps=2))
    assert both.pairs(query)[0].image == one.pairs(query)[0].image
    assert both.held("mesh").vae is both.held("capsule").vae


def test_without_its_foundation_it_is_refused_until_its_new_place_is_said(storage, images, load_run):
    config = load_run(storage, images, "adapted", *LORA)
    (storage / "trained").rename(storage / "elsewhere")
    words = r"adapters over the foundation trained/capsule with weights \w{12}, and there is no trained/capsule; put"
    with pytest.raises(DamagedError, match=words):
        open_model(storage / "adapted/models/mesh", config)
    asked = command("submit", "synthesize", "--run", "adapted", "--storage", storage, "--dry-run")
    assert "there is no trained/capsule; put the foundation back" in str(asked.exception)
    (fault,) = faults_of(Run(config).folder)
    assert fault.path == "foundation.json"
    assert "there is no trained/capsule" in fault.problem
    assert "model.backbone=PLACE" in fault.remedy
    moved = load_run(storage, images, "adapted", *LORA, "model.backbone=elsewhere/capsule")
    open_model(storage / "adapted/models/mesh", moved)


def test_over_another_foundation_it_is_refused(storage, images, load_run):
    other = load_run(storage, images, "adapted", *LORA, "model.backbone=trained/mesh")
    with pytest.raises(DamagedError, match="the weights of trained/mesh are"):
        open_model(storage / "adapted/models/mesh", other)


def test_what_is_exported_needs_no_foundation_and_draws_alike(adapted, tmp_path):
    with as_whole(adapted[0] / "adapted/models/mesh", adapted[1]) as folder:
        whole = DHDiffPipeline.from_pretrained(folder)
        torch.testing.assert_close(draw(whole), draw(opened(adapted, "mesh")), atol=1e-4, rtol=0)
    named = ("--run", "adapted", "--storage", adapted[0], "--category", "mesh", "--out", tmp_path / "out")
    assert command("export", "--self-contained", *named).exit_code == 0
    assert (tmp_path / "out/unet/diffusion_pytorch_model.safetensors").is_file()


def test_adapters_are_no_foundation(adapted, images, load_run):
    asked = load_run(adapted[0], images, "next", "model.backbone=adapted/mesh")
    with pytest.raises(ValueError, match="is adapters over a foundation and no whole model"):
        foundation_of(asked)
