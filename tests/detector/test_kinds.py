"""Localisers of a run: counts that match, conditions that are kept."""

import math

import numpy as np
import pytest

from dhdiff_ray.data.images import shrink_mask
from dhdiff_ray.data.registry import configured, open_dataset
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.detector.results import BASELINES
from dhdiff_ray.run.run import Run


class Heard:
    def __init__(self):
        self.steps = []

    def __call__(self, done, loss=None):
        self.steps.append(done)

    def warn(self, message):
        raise AssertionError(message)


@pytest.fixture
def mesh(paired):
    """mesh(**fields) -> the detectors of a category under these settings, with ears of their own."""
    config = paired()

    def under(**fields):
        asked = config.model_copy(update={"detect": config.detect.model_copy(update=fields)})
        return Detectors(Run(asked), "mesh", Heard())

    return under


def test_the_real_localiser_is_trained_once_and_again_when_its_conditions_change(mesh):
    first, again, longer = mesh(), mesh(), mesh(steps=5)
    first.real_localiser()
    weights = first.run.folder.read_bytes("detectors/mesh/real.safetensors")
    again.real_localiser()
    assert (first.progress.steps, again.progress.steps) == ([1, 2, 3, 4], [4])
    longer.real_localiser()
    assert longer.progress.steps == [1, 2, 3, 4, 5]
    assert first.run.folder.read_bytes("detectors/mesh/real.safetensors") != weights


def test_made_pairs_are_taken_from_the_first_and_as_many_as_real_ones(mesh):
    _, facts = mesh().new_localiser("synthetic")
    assert facts == {"n_pairs": 6}


def test_as_many_defects_are_pasted_as_pairs_are_made(mesh):
    assert mesh(steps=1).new_localiser("pasted")[1] == {"n_pasted": 6}
    assert mesh(steps=1).new_localiser("real_pasted_synthetic")[1] == {"n_train": 6, "n_pasted": 6, "n_pairs": 6}


def test_all_made_pairs_may_be_shown_and_as_many_pasted_ones_from_the_few_real_ones(mesh):
    assert mesh(steps=1, pairs=3).new_localiser("real_pasted_synthetic")[1] == {
        "n_train": 6,
        "n_pasted": 9,
        "n_pairs": 9,
    }


def test_real_ones_are_at_least_the_share_asked_for_and_more_where_they_come_so(mesh):
    assert mesh()._chances({"n_train": 6, "n_pairs": 6}) is None
    assert mesh(real_share=0)._chances({"n_train": 6, "n_pairs": 60}) is None
    assert mesh()._chances({"n_train": 6}) is None
    assert mesh()._chances({"n_pairs": 6}) is None
    chances = mesh()._chances({"n_train": 2, "n_pasted": 4, "n_pairs": 4})
    assert chances[:2].sum() == pytest.approx(0.5) and chances.sum() == pytest.approx(1)
    assert len(set(chances[:2])) == len(set(chances[2:])) == 1


def test_further_trainings_of_a_kind_have_seeds_and_files_of_their_own(mesh):
    first = mesh()
    second = Detectors(first.run, "mesh", Heard(), at=1)
    first.examined("real")
    weights = first.run.folder.read_bytes("detectors/mesh/real.safetensors")
    second.examined("real")
    assert (first.seed, second.seed) == (0, 1)
    assert first.run.folder.read_bytes("detectors/mesh/real.safetensors") == weights, "the oracle is the first one"
    assert second.progress.steps == [1, 2, 3, 4]
    assert first.run.folder.exists("detectors/mesh/real.figures.json")
    assert first.run.folder.exists("detectors/mesh/real.1.figures.json")


def test_the_kept_localiser_may_be_a_head_on_a_pretrained_network(mesh):
    first, again = (mesh(network="pretrained", steps=2) for _ in range(2))
    images = first.test_half()[1]
    maps, _ = first.trained("real")
    same, _ = again.trained("real")
    assert again.progress.steps == [2]
    np.testing.assert_array_equal(maps(images), same(images))


def test_figures_that_are_kept_are_taken_again_on_resume_until_their_conditions_change(mesh):
    figures = mesh().examined("normal")
    again, changed = mesh(), mesh(steps=5)
    assert again.examined("normal", resume=True) == figures
    assert again.progress.steps == [4]
    assert changed.examined("normal", resume=True) | {"seconds": 0} == figures | {"seconds": 0}
    assert changed.run.folder.read_json("detectors/mesh/normal.figures.json")["conditions"] != figures


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("select", ["last", "heldout", "test"])
def test_every_baseline_is_trained_and_tested_on_the_held_out_half(mesh, kind, select):
    detectors = mesh(steps=2, select=select, mask_rule="peers")
    maps_of, facts = detectors.trained(kind)
    figures = detectors.tested(maps_of)
    assert (figures["n_good"], figures["n_defect"]) == (2, 6)
    assert {"pixel_ap", "pro", "image_f1_max"} <= figures.keys()
    assert "spro" not in figures, "only MVTec LOCO says how much of a defect counts as all"
    if kind != "normal":
        assert ("TEST" in facts.get("selected_on", "")) == (select == "test")
        assert ("n_held_out" in facts) == (select == "heldout")


@pytest.mark.parametrize("several", ["combined", "each"])
def test_detection_on_loco_reports_spro_from_the_archives_saturation_areas(tmp_path, load_run, several):
    root = tmp_path / "loco"
    loader = open_dataset("loco")
    loader.example(root)
    config = load_run(tmp_path, root, "loco", "data.dataset=loco", f"data.several_defects={several}")
    run = Run(config)
    run.begin(configured(config.data).scan(root))
    (category,) = run.split.categories
    detectors = Detectors(run, category, Heard())
    samples, images, _ = detectors.test_half()
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

    whole, less = (detectors.tested(maps_of(missing)) for missing in (0, 2))
    assert whole["spro"] == pytest.approx(1)
    assert whole["pro"] < 0.99, "half of an almond is not all of it where nothing saturates"
    assert 0.3 < less["spro"] < 0.99
