"""A file of a run that cannot be used is named, with what to type; one category's stops no other."""

from pathlib import Path

import pytest
from safetensors.torch import save
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.detector.results import kept
from dhdiff_ray.pairs.make import open_pipeline
from dhdiff_ray.run.damage import DamagedError, remedy_of
from dhdiff_ray.run.run import Run
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.questions import RefusedError
from dhdiff_ray.training.cache import _kept
from dhdiff_ray.training.checkpoint import check_model, model_facts

WEIGHTS = "models/mesh/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def run(trained):
    return Run(trained())


class Quiet:
    """Progress that nobody wants to know."""

    def __call__(self, done: int, loss: float | None = None) -> None: ...

    def warn(self, message: str) -> None: ...


def flip(folder, name, at=-100):
    file = Path(folder.path(name))
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("content", [b"", b'{"train": ', b"\xff\xfe", b"[]", b"{}", b'{"train": {"steps": "many"}}'])
@pytest.mark.parametrize("name", ["config.json", "split.json", "models/mesh/dhdiff.json"])
def test_a_file_that_cannot_be_read_is_named_with_what_to_type(run, name, content):
    if name == "config.json" and content == b"{}":
        pytest.skip("an empty configuration is one: everything as it is by default")
    run.folder.write_bytes(name, content)
    read = {"config.json": lambda: Run.stored(run.folder), "split.json": lambda: run.split,
            "models/mesh/dhdiff.json": lambda: model_facts(run.folder, "mesh")}[name]  # fmt: skip
    with pytest.raises(DamagedError) as caught:
        read()
    assert f"{run.folder.uri}/{name} is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "submit train" in str(caught.value) or "put it back from a copy" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models/bottle/unet/config.json", "remove models/bottle and go on"),
        ("pairs/bottle/test/crack/000001.png", "submit synthesize"),
        ("synthesis/bottle.json", "pairs of bottle as before"),
        ("scores/bottle.json", "submit score"),
        ("detection.json", "submit detect"),
        ("something", "put it back from a copy"),
    ],
)
def test_every_kind_of_file_has_a_remedy(name, words):
    assert words in remedy_of(name)


@pytest.mark.parametrize(
    "name", [WEIGHTS, "models/mesh/scheduler/scheduler_config.json", "models/mesh/tokenizer/tokenizer.json",
             "models/mesh/files.json"]
)  # fmt: skip
def test_a_model_with_a_flipped_bit_is_not_opened(run, name):
    open_pipeline(run.config, run.folder.local("models/mesh"), 0)
    flip(run.folder, name, at=10 if name.endswith("files.json") else -100)
    with pytest.raises(DamagedError, match=r"model of 'mesh' in .* is damaged: .*; remove models/mesh and go on"):
        open_pipeline(run.config, run.folder.local("models/mesh"), 0)


def test_a_model_without_hashes_of_its_files_is_held_to_that_of_its_weights(run):
    run.folder.delete("models/mesh/files.json")
    check_model(run.folder.local("models/mesh"))
    flip(run.folder, WEIGHTS)
    with pytest.raises(DamagedError, match="its weights are not those that were published"):
        check_model(run.folder.local("models/mesh"))
    run.folder.delete("models/mesh/dhdiff.json")
    check_model(run.folder.local("models/mesh"))  # a folder of somebody's


def test_a_models_card_may_be_edited(run):
    Path(run.folder.path("models/mesh/README.md")).write_text("mine")
    check_model(run.folder.local("models/mesh"))


def test_neither_explain_nor_export_opens_a_damaged_model(run):
    flip(run.folder, WEIGHTS)
    place = ("--run", "trained", "--storage", str(Path(run.folder.path()).parent))
    out = str(Path(run.folder.path()).parent / "out")
    for words in (("explain", *place, "-c", "mesh", "--out", f"{out}.png"),
                  ("export", *place, "-c", "mesh", "--self-contained", "--out", out)):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, DamagedError), done.output


def test_an_endpoint_leaves_out_the_category_whose_marker_is_damaged(run, caplog):
    run.folder.write_bytes("models/mesh/dhdiff.json", b"")
    catalogue = Catalogue(run.config)
    assert sorted(catalogue.facts) == ["capsule"]
    with pytest.raises(RefusedError, match="the model of 'mesh' is damaged"):
        catalogue.facts_of("mesh")
    assert "models/mesh/dhdiff.json is damaged" in caplog.text


def test_a_localiser_that_is_damaged_is_trained_again(run):
    detectors = Detectors(run, "mesh", Quiet())
    detectors.real_localiser()
    weights = run.folder.read_bytes("detectors/mesh/real.safetensors")
    flip(run.folder, "detectors/mesh/real.safetensors")
    detectors.real_localiser()
    assert run.folder.read_bytes("detectors/mesh/real.safetensors") == weights
    run.folder.write_bytes("detectors/mesh/real.json", b"{")
    detectors.real_localiser()
    assert run.folder.read_bytes("detectors/mesh/real.safetensors") == weights
    assert run.folder.read_json("detectors/mesh/real.json")


def test_figures_and_latents_that_are_damaged_count_as_not_there(run):
    import torch

    run.folder.write_bytes("detectors/mesh/figures_real.json", b"{")
    assert kept(run.folder, "mesh", ("real", 0)) is None
    name = "cache/mesh/latents-0.safetensors"
    run.folder.write_bytes(name, save({"image": torch.zeros(3)}))
    assert _kept(run.folder, name) is not None
    run.folder.write_json(f"{name}.json", [1, "another"])
    assert _kept(run.folder, name) is None
    run.folder.delete(f"{name}.json")
    run.folder.write_bytes(name, b"cut")
    assert _kept(run.folder, name) is None
