"""Localisers of a run: counts that match, conditions that are kept."""

import math

import numpy as np
import pytest

from dhdiff_ray.data.images import shrink_mask
from dhdiff_ray.data.registry import configured, open_dataset
from dhdiff_ray.data.split import split_as
from dhdiff_ray.detector.results import KINDS
from dhdiff_ray.on_ray.verbs import detect
from dhdiff_ray.pairs.writer import PairsError
from dhdiff_ray.run.run import run_folder, stored_split


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("select", ["last", "heldout", "test"])
def test_every_baseline_is_trained_and_tested_on_the_held_out_half(mesh, kind, select):
    config, folder, split = mesh
    chosen = config.detect.model_copy(update={"steps": 2, "select": select, "mask_rule": "peers"})
    config = config.model_copy(update={"detect": chosen})
    maps_of, facts = detect.TRAINED[kind](config, folder, split, Told())
    found = detect.tested(config, split, Told(), maps_of)
    assert (found["n_good"], found["n_defect"]) == (2, 6)
    assert {"pixel_ap", "pro", "image_f1_max"} <= found.keys()
    assert "spro" not in found, "only MVTec LOCO says how much of a defect counts as all"
    if kind != "normal":
        assert ("TEST" in facts.get("selected_on", "")) == (select == "test")
        assert ("n_held_out" in facts) == (select == "heldout")


@pytest.mark.parametrize("several", ["combined", "each"])
def test_detection_on_loco_reports_spro_from_the_archives_saturation_areas(tmp_path, load_run, several):
    root = tmp_path / "loco"
    loader = open_dataset("loco")
    loader.example(root)
    config = load_run(tmp_path, root, "loco", "data.dataset=loco", f"data.several_defects={several}")
    split = split_as(config.data, 0, configured(config.data).scan(root))
    samples, images, _ = detect.read_test(config, split, Told())
    assert len({s.image for s in samples}) == len(samples), "each image is tested once"

    def maps_of(missing):
        """Of each defect just what counts as all of it, less some pixels; no false alarm."""
        maps = np.zeros(images.shape[:3], np.float32)
        for index, sample in enumerate(samples):
            for one in loader.instances(root, sample):
                y, x = np.nonzero(shrink_mask(one.pixels, 32))
                enough = math.ceil(one.saturation / one.pixels.sum() * len(y)) - missing
                maps[index, y[:enough], x[:enough]] = 1
        return lambda _: maps

    whole, less = (detect.tested(config, split, Told(), maps_of(missing)) for missing in (0, 2))
    assert whole["spro"] == pytest.approx(1)
    assert whole["pro"] < 0.99, "half of an almond is not all of it where nothing saturates"
    assert 0.3 < less["spro"] < 0.99


def test_a_split_with_another_image_has_another_digest(mesh):
    _, _, split = mesh
    changed = type(split)(split.train, split.test[1:], split.seed, split.fraction, split.root, split.hashes)
    assert detect.split_digest(split) != detect.split_digest(changed)
    assert detect.split_digest(split) == detect.split_digest(split.category("mesh"))


def test_a_run_without_pairs_says_what_to_submit(trained):
    with pytest.raises(PairsError, match="submit synthesize"):
        detect.main(trained())
