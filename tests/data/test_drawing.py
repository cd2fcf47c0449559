import numpy as np
import pytest

from dhdiff_ray.data.drawing import THRESHOLD, draw
from dhdiff_ray.data.products import ARTISTS, DEFECTS

KINDS = [(category, defect) for category, defects in DEFECTS.items() for defect in defects]


@pytest.mark.parametrize(("category", "defect"), KINDS)
@pytest.mark.parametrize("resolution", [64, 48])
def test_outside_the_mask_a_defective_product_is_the_sound_one(category, defect, resolution):
    for seed in range(4):
        drawing = draw(ARTISTS[category], defect, resolution, np.random.default_rng(seed))
        change = np.abs(drawing.image.astype(int) - drawing.sound).max(axis=-1)
        assert change[drawing.mask == 0].max() <= THRESHOLD
        assert change[drawing.mask > 0].mean() > 25, "the defect is clearly visible inside its mask"


@pytest.mark.parametrize(("category", "defect"), KINDS)
def test_masks_are_one_solid_region_of_a_few_percent(category, defect):
    from scipy import ndimage

    for seed in range(6):
        mask = draw(ARTISTS[category], defect, 64, np.random.default_rng(seed)).mask > 0
        assert 0.012 < mask.mean() < 0.1
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        largest = np.bincount(regions.ravel())[1:].max()
        assert count >= 1
        assert largest >= 0.95 * mask.sum()


@pytest.mark.parametrize("category", sorted(DEFECTS))
def test_a_sound_product_has_an_empty_mask_and_products_vary(category):
    first, second = (draw(ARTISTS[category], "good", 32, np.random.default_rng(seed)) for seed in (0, 1))
    assert not first.mask.any()
    assert np.array_equal(first.image, first.sound)
    assert np.abs(first.image.astype(int) - second.image).mean() > 2


@pytest.mark.parametrize("category", sorted(DEFECTS))
def test_the_sound_product_does_not_depend_on_its_defect(category):
    y, x = np.mgrid[:64, :64].astype(np.float32) / 64
    good, *others = (ARTISTS[category](name, x, y, np.random.default_rng(2)) for name in ("good", *DEFECTS[category]))
    assert all(np.array_equal(good.sound, other.sound) for other in others)
