import itertools

import numpy as np
import pytest

from dhdiff_ray.data.regions import BLANK, control_from_box, control_from_points, raw_mask, reference_image


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


def test_control_from_points_marks_the_cell_of_each_point():
    control = control_from_points([(0, 0), (63.5, 30)], 64, 4)
    assert set(np.unique(control)) == {0, 255}
    assert control[:16, :16].all()
    assert control[16:32, 48:].all()
    assert (control > 0).sum() == 2 * 16 * 16


@pytest.mark.parametrize("points", [[], [(64, 3)], [(-1, 3)]])
def test_control_points_outside_the_image_are_refused(points):
    with pytest.raises(ValueError, match="point"):
        control_from_points(points, 64, 5)


def test_control_from_box_fills_the_box():
    assert (control_from_box((2, 3, 10, 5), 64) > 0).sum() == 16
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        control_from_box((10, 3, 2, 5), 64)
