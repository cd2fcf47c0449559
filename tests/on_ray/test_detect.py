"""Localisers of a run: counts that match, conditions that are kept."""

import pytest

from dhdiff_ray.data.writer import PairsError
from dhdiff_ray.on_ray import detect
from dhdiff_ray.on_ray.run import run_folder, stored_split


class Told:
    def __init__(self):
        self.steps = []

    def __call__(self, done, loss=None):
        self.steps.append(done)

    def warn(self, message):
        raise AssertionError(message)


@pytest.fixture
def mesh(paired):
    config = paired()
    folder = run_folder(config)
    return config, folder, stored_split(folder, config.data.root).category("mesh")


def test_the_real_localiser_is_trained_once_and_again_when_its_conditions_change(mesh):
    config, folder, split = mesh
    first, again, other = Told(), Told(), Told()
    detect.real_localiser(config, folder, split, first)
    weights = folder.read_bytes("detectors/mesh/real.safetensors")
    detect.real_localiser(config, folder, split, again)
    assert (first.steps, again.steps) == ([1, 2, 3, 4], [4])
    longer = config.model_copy(update={"detect": config.detect.model_copy(update={"steps": 5})})
    detect.real_localiser(longer, folder, split, other)
    assert other.steps == [1, 2, 3, 4, 5]
    assert folder.read_bytes("detectors/mesh/real.safetensors") != weights


def test_made_pairs_are_taken_from_the_first_and_as_many_as_real_ones(mesh):
    config, folder, split = mesh
    _, facts = detect.synthetic_localiser(config, folder, split, Told())
    assert facts == {"n_pairs": 6}


@pytest.mark.parametrize("kind", detect.KINDS)
@pytest.mark.parametrize("select", ["last", "heldout", "test"])
def test_every_baseline_is_trained_and_tested_on_the_held_out_half(mesh, kind, select):
    config, folder, split = mesh
    chosen = config.detect.model_copy(update={"steps": 2, "select": select, "mask_rule": "peers"})
    config = config.model_copy(update={"detect": chosen})
    maps_of, facts = detect.TRAINED[kind](config, folder, split, Told())
    found = detect.tested(config, split, Told(), maps_of)
    assert (found["n_good"], found["n_defect"]) == (2, 6)
    assert {"pixel_ap", "pro", "image_f1_max"} <= found.keys()
    if kind != "normal":
        assert ("TEST" in facts.get("selected_on", "")) == (select == "test")
        assert ("n_held_out" in facts) == (select == "heldout")


def test_a_split_with_another_image_has_another_digest(mesh):
    _, _, split = mesh
    changed = type(split)(split.train, split.test[1:], split.seed, split.fraction, split.root, split.hashes)
    assert detect.split_digest(split) != detect.split_digest(changed)
    assert detect.split_digest(split) == detect.split_digest(split.category("mesh"))


def test_a_run_without_pairs_says_what_to_submit(trained):
    with pytest.raises(PairsError, match="submit synthesize"):
        detect.main(trained())
