import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import auc, roc_curve

from dhdiff_ray.metrics.pro import Region, pro, regions_of, spro


def draw_case(seed):
    """Six images with one to three round defects each, two normal ones, and noisy maps that half see them."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :48]
    masks = np.zeros((8, 48, 48), np.uint8)
    for mask in masks[:6]:
        for _ in range(int(draw.integers(1, 4))):
            y, x = draw.integers(4, 44, 2)
            mask[np.hypot(rows - y, columns - x) < draw.uniform(1.5, 7)] = 255
    maps = draw.normal(0, 1, masks.shape) + (masks > 0) * draw.uniform(0.5, 2.5, (8, 1, 1))
    return masks, maps.astype(np.float32)


def by_region(masks, maps, limit):
    """anomalib's definition: per region the ROC against all defect-free pixels, averaged over regions."""
    free = maps[masks == 0]
    grid = np.linspace(0, limit, 4001)
    curves = []
    for mask, scores in zip(masks, maps, strict=True):
        pieces, count = label(mask > 0, np.ones((3, 3)))
        for at in range(1, count + 1):
            inside = scores[pieces == at]
            truth = np.r_[np.ones(len(inside)), np.zeros(len(free))]
            x, y, _ = roc_curve(truth, np.r_[inside, free], drop_intermediate=False)
            curves.append(np.interp(grid, x, y))
    return auc(grid, np.mean(curves, axis=0)) / limit


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_pro_is_the_mean_of_the_regions_own_roc_curves(seed, limit):
    masks, maps = draw_case(seed)
    assert pro(masks, maps, limit) == pytest.approx(by_region(masks, maps, limit), abs=1e-3)


def test_a_perfect_map_scores_one_and_an_inverted_one_zero():
    masks, _ = draw_case(0)
    assert pro(masks, masks.astype(np.float32)) == pytest.approx(1)
    assert pro(masks, -masks.astype(np.float32)) == pytest.approx(0)
    assert pro(masks, np.zeros(masks.shape)) == pytest.approx(0.15), "a constant map is the diagonal: 0.3 / 2"


def test_a_small_region_counts_as_much_as_a_large_one():
    masks = np.zeros((1, 16, 16), np.uint8)
    masks[0, :8, :8] = masks[0, 15, 15] = 255
    found_large = np.zeros((1, 16, 16))
    found_large[0, :8, :8] = 1
    assert pro(masks, found_large, 0.3) == pytest.approx(0.5 + 0.5 * 0.15)


def test_pixels_that_touch_at_a_corner_are_one_region():
    assert len(regions_of(np.eye(4)[None])) == 1
    assert len(regions_of(np.array([[[1, 0, 1]]]))) == 2


def test_nothing_to_find_or_nothing_free_has_no_value():
    assert pro(np.zeros((1, 4, 4)), np.zeros((1, 4, 4))) is None
    assert pro(np.ones((1, 4, 4)), np.zeros((1, 4, 4))) is None
    with pytest.raises(ValueError, match="limit"):
        pro(np.eye(4)[None], np.eye(4)[None], limit=0)


def test_a_saturated_region_is_found_when_enough_of_it_is():
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :4] = 255
    maps = np.zeros((1, 8, 8))
    maps[0, :1] = 1
    whole = [Region(0, masks[0] > 0, 32.0)]
    quarter = [Region(0, masks[0] > 0, 8.0)]
    assert spro(quarter, masks, maps) == pytest.approx(1)
    assert spro(whole, masks, maps) == pytest.approx(0.25 + 0.75 * 0.025)
