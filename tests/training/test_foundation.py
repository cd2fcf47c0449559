"""A model of ours as the start of another's training."""

import json

import pytest
import torch

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.products import DEMO
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.model.text import tokenize
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.foundation import foundation_of, shipped
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.build import build, build_source, fit_look
from dhdiff_ray.training.checkpoint import publish
from dhdiff_ray.training.loop import PlainEngine, fit

SMALL = (
    "train.learning_rate=3e-3",
    "data.resolution=32",
    "model.channels=[16,16]",
    "model.attention_blocks=[false,true]",
    "model.dda_encoder=[0,1]",
    "model.dda_decoder=[0]",
    "model.ssm_encoder=[0,1]",
    "model.ssm_decoder=[0]",
    "model.text_width=16",
    "train.global_batch_size=2",
    "train.steps=2",
    "train.window=16",
)
PROMPT = "a photo of a capsule with crack"


def configured(storage, run, *sets):
    places = (f'run.storage="{storage}"', f"run.name={run}", "model.backbone=''")
    return load_config(preset="tiny", sets=(*SMALL, *places, *sets)).config


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "procedural"
    generate(root, resolution=32, defects_per_type=2, train_good=2, test_good=1)
    return {
        name: read_many(open_dataset("procedural").scan(root, [name]), 32, False, print) for name in ("capsule", "mesh")
    }


@pytest.fixture(scope="module")
def storage(tmp_path_factory, drawn):
    """A storage with the run ``first`` and its trained model ``capsule``."""
    place = tmp_path_factory.mktemp("runs")
    train(configured(place, "first"), drawn["capsule"], "capsule")
    return place


def train(config, pictures, category):
    parts = build(config, *pictures[:2])
    source = build_source(parts, config, *pictures)
    fit_look(parts, source)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    publish(parts, None, Run(config, RunFolder.of(config.run.storage, config.run.name)), category, {"defects": ["x"]})
    return parts


@pytest.mark.parametrize("named", ["first/capsule", "{}/first/models/capsule", "file://{}/first/models/capsule"])
def test_a_model_adapted_from_ours_begins_with_all_it_knew_and_learns_its_own_words(storage, drawn, named):
    config = configured(storage, "second", f'model.backbone="{named.format(storage)}"')
    known = build(configured(storage, "first"), *drawn["capsule"][:2])
    again = build(config, *drawn["mesh"][:2])
    (folder,) = (storage / "first" / "models" / "capsule",)
    begun = type(again.objective.unet).from_pretrained(folder / "unet").state_dict()
    assert all(torch.equal(begun[key], value) for key, value in again.objective.unet.state_dict().items())
    scales = json.loads((folder / "vae/config.json").read_text())["scales"]
    assert list(again.vae.config.scales) == scales, "latents keep the scaling that the network knows"
    states = [parts.text_encoder(tokenize(parts.tokenizer, [PROMPT])).last_hidden_state for parts in (known, again)]
    torch.testing.assert_close(*states)
    assert "bent" in again.tokenizer.get_vocab()
    assert again.objective.trained_parameters()


def test_adapting_trains_and_publishes_with_where_it_came_from(storage, drawn):
    config = configured(storage, "third", 'model.backbone="first/capsule"', 'data.categories=["mesh"]')
    train(config, drawn["mesh"], "mesh")
    about = foundation_of(config).about
    assert about["name"] == "first/capsule"
    assert (
        about["weights_sha256"]
        == json.loads((storage / "first/models/capsule/dhdiff.json").read_text())["weights_sha256"]
    )
    told = [file.read_text() for file in (storage / "third/models/mesh").rglob("*.json")]
    assert told and not any(str(storage) in text for text in told), "what is published names no place of this machine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.channels=[16,24]", r"trained with model.channels = \[16, 16\], and \[16, 24\] is asked"),
        ("model.haar_levels=2", "model.haar_levels = 1"),
        ("model.dda=false", "model.dda_encoder"),
        ("train.prediction=epsilon", "train.prediction = 'v'"),
        ("train.noise=texture", "train.noise = 'white'"),
    ],
)
def test_a_foundation_of_another_kind_is_refused_with_what_differs(storage, drawn, change, words):
    config = configured(storage, "other", 'model.backbone="first/capsule"', change)
    with pytest.raises(ValueError, match=words):
        build(config, *drawn["mesh"][:2])


def test_a_damaged_foundation_is_refused(storage, drawn):
    config = configured(storage, "damaged")
    train(config, drawn["capsule"], "capsule")
    weights = storage / "damaged/models/capsule/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    asked = configured(storage, "next", 'model.backbone="damaged/capsule"')
    with pytest.raises(ValueError, match="the weights of damaged/capsule are not those that were published"):
        foundation_of(asked)
    (storage / "damaged/models/capsule/dhdiff.json").write_text("{")
    with pytest.raises(ValueError, match="is no finished model"):
        foundation_of(asked)


def test_a_run_refuses_a_foundation_that_changed_since_it_was_begun(storage, drawn):
    config = configured(storage, "fourth", 'model.backbone="first/capsule"')
    run = Run(config)
    run.folder.write_json("foundation.json", {"name": "first/capsule", "weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="begin a new --run"):
        _ = run.foundation


def test_a_name_that_does_not_ship_is_answered_with_those_that_do(tmp_path):
    with pytest.raises(ValueError, match="no model 'dhdiff-ray/large' comes with this package"):
        foundation_of(configured(tmp_path, "x", "model.backbone=dhdiff-ray/large"))


def test_a_stable_diffusion_is_no_foundation(stable_diffusion, tmp_path):
    assert foundation_of(configured(tmp_path, "x", f'model.backbone="{stable_diffusion}"')) is None


def test_the_model_that_ships_is_small_has_seen_no_product_of_the_demo_and_is_what_tiny_adapts(tmp_path):
    config = load_config(preset="tiny", sets=(f'run.storage="{tmp_path}"', "run.name=x")).config
    foundation = foundation_of(config)
    assert config.model.backbone in shipped()
    assert sum(file.stat().st_size for file in foundation.folder.rglob("*") if file.is_file()) < 8e6
    seen = {name for source in foundation.facts["sources"] for name in source["categories"]}
    assert len(seen) >= 12
    assert not seen & set(DEMO)
    generate(tmp_path / "drawn", resolution=64, categories=["mesh"], defects_per_type=1, train_good=1, test_good=1)
    samples, images, _ = read_many(open_dataset("procedural").scan(tmp_path / "drawn"), 64, False, print)
    parts = build(config, samples, images)
    assert {p.dtype for p in parts.objective.parameters()} == {torch.float32}, "it ships in half, and trains in whole"
