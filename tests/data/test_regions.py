import itertools

import numpy as np
import pytest

from dhdiff_ray.data.regions import BLANK, drawn_control, raw_mask, reference_image


@pytest.mark.parametrize(("side", "grid"), [(64, 5), (256, 5), (61, 7), (30, 1), (8, 8)])
def test_raw_mask_is_exactly_the_cells_that_touch_the_anomaly(side, grid):
    mask = (np.random.default_rng(side).random((side, side)) < 3 / side**2).astype(np.uint8) * 255
    mask[side // 3, side // 2] = 1
    cells = raw_mask(mask, grid)
    edges = [round(i * side / grid) for i in range(grid + 1)]
    for top, bottom in itertools.pairwise(edges):
        for left, right in itertools.pairwise(edges):
            touched = mask[top:bottom, left:right].any()
            assert (cells[top:bottom, left:right] == (255 if touched else 0)).all()


def test_raw_mask_of_nothing_is_nothing_and_too_fine_a_grid_is_refused():
    assert not raw_mask(np.zeros((20, 30), np.uint8), 5).any()
    with pytest.raises(ValueError, match=r"data\.grid"):
        raw_mask(np.zeros((20, 30), np.uint8), 21)


def test_reference_image_modes_keep_what_they_say():
    image = np.random.default_rng(0).integers(0, 120, (10, 10, 3), dtype=np.uint8)
    cells = np.zeros((10, 10), np.uint8)
    cells[2:4, 4:8] = 255
    defect, background = (reference_image(image, cells, mode) for mode in ("defect", "background"))
    assert (defect[cells > 0] == image[cells > 0]).all()
    assert (defect[cells == 0] == BLANK).all()
    assert (background[cells > 0] == BLANK).all()
    assert (background[cells == 0] == image[cells == 0]).all()
    assert (reference_image(image, cells, "full") == image).all()
    assert (reference_image(image, cells, "none") == BLANK).all()
    with pytest.raises(ValueError, match="defect, background, full or none"):
        reference_image(image, cells, "crop")


def test_points_mark_their_cells_boxes_what_they_touch_and_both_add_up():
    points, boxes = [(0, 0), (63.5, 30)], [(2.4, 40, 10.1, 42)]
    clicked = drawn_control(points, [], 64, 4)
    assert set(np.unique(clicked)) == {0, 255}
    assert clicked[:16, :16].all()
    assert clicked[16:32, 48:].all()
    assert (clicked > 0).sum() == 2 * 16 * 16
    filled = drawn_control([], boxes, 64, 4)
    assert filled[40:42, 2:11].all()
    assert (filled > 0).sum() == 2 * 9
    assert (drawn_control(points, boxes, 64, 4) == np.maximum(clicked, filled)).all()


def test_what_is_drawn_on_a_larger_picture_lies_at_the_same_place_of_the_working_image():
    small = drawn_control([(9, 20)], [(8, 16, 24, 20)], 32, 4)
    assert (drawn_control([(36, 40)], [(32, 32, 96, 40)], 32, 4, (128, 64)) == small).all()


@pytest.mark.parametrize("point", [(64, 3), (-1, 3), (float("nan"), 3)])
def test_points_outside_the_image_are_refused(point):
    with pytest.raises(ValueError, match=r"point .* lies outside the 64 x 64 image"):
        drawn_control([point], [], 64, 5)


@pytest.mark.parametrize("box", [(10, 3, 2, 5), (3, 3, 3, 5), (-0.4, 3, 9, 5), (3, 3, 65, 5)])
def test_boxes_that_are_empty_or_leave_the_image_are_refused(box):
    with pytest.raises(ValueError, match=r"must be \(left, top, right, bottom\) inside the 64 x 64 image"):
        drawn_control([], [box], 64, 5)
