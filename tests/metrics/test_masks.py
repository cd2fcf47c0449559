import numpy as np
import pytest

from dhdiff_ray.metrics.masks import mask_rows, mask_scores, properties


def square(side, top=0, left=0, size=32):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def test_properties_by_hand():
    area, x, y, compactness, pieces = properties(square(8, top=0, left=24))
    assert (area, x, y, compactness, pieces) == (64 / 1024, 28 / 32, 4 / 32, 1, 1)
    line = properties(np.eye(32)[:1])
    assert line[3] == 1 and properties(np.eye(32))[4] == 1, "a diagonal is one piece"
    assert properties(np.eye(32))[3] < 0.05


def test_an_empty_mask_has_no_place():
    empty = properties(np.zeros((4, 4)))
    assert (empty[0], empty[4]) == (0, 0)
    assert np.isnan(empty[1:4]).all()


def test_masks_like_the_real_ones_are_near_and_others_are_far():
    draw = np.random.default_rng(0)
    real = [square(6, *draw.integers(0, 20, 2)) for _ in range(40)]
    like = mask_rows([str(i) for i in range(40)], [square(6, *draw.integers(0, 20, 2)) for _ in range(40)])
    other = mask_rows(["a", "b"], [square(20), np.zeros((32, 32))])
    near, far = ({s.metric: s for s in mask_scores(rows, real[:20], real[20:])} for rows in (like, other))
    for name in ("mask_area", "mask_position"):
        assert near[name].value < far[name].value
    assert near["mask_area"].value == near["mask_area"].reference == 0
    assert far["mask_area"].value == pytest.approx((400 - 36) / 1024)
    assert far["mask_empty"].value == 0.5
    assert far["mask_empty"].reference == 0
    assert near["mask_area"].conditions["made_mean"] == pytest.approx(36 / 1024)


def test_without_real_masks_there_is_no_distance_but_a_share_of_empty_ones():
    scores = {s.metric: s for s in mask_scores(mask_rows(["a"], [square(4)]), [], [])}
    assert scores["mask_area"].value is None
    assert scores["mask_empty"].value == 0
