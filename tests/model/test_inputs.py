"""What is drawn by hand becomes the same masks in the pipeline as in the data, which may not import each other."""

import random

import numpy as np
import pytest
import torch
from drawings import random_drawing

from dhdiff_ray.data import regions
from dhdiff_ray.model.inputs import as_inputs, cells_of, drawn_control

SIZES = [(64, 5), (60, 7), (16, 4), (33, 1)]


@pytest.mark.parametrize(("side", "grid"), SIZES)
def test_points_and_boxes_become_the_same_control_mask_as_in_the_data(side, grid):
    for seed in range(40):
        points, boxes = random_drawing(random.Random(seed), side, side)
        made = drawn_control(points, boxes, (side, side), grid)[0, 0].numpy() * 255
        np.testing.assert_array_equal(made, regions.drawn_control(points, boxes, side, grid))


@pytest.mark.parametrize(("side", "grid"), SIZES)
def test_the_cells_of_a_mask_are_its_raw_mask(side, grid):
    for seed in range(20):
        mask = np.random.default_rng(seed).random((3, side, side)) < 4 / side**2
        cells = cells_of(torch.from_numpy(mask)[:, None].float(), grid)
        wanted = np.stack([regions.raw_mask(one, grid) for one in mask])
        np.testing.assert_array_equal(cells[:, 0].numpy() * 255, wanted)


@pytest.mark.parametrize("drawing", [([(16, 2)], []), ([], [(4, 4, 4, 9)]), ([], [(4, 4, 16.5, 9)])])
def test_what_the_data_refuse_the_pipeline_refuses_in_the_same_words(drawing):
    with pytest.raises(ValueError) as wanted:
        regions.drawn_control(*drawing, 16, 4)
    with pytest.raises(ValueError) as refused:
        drawn_control(*drawing, (16, 16), 4)
    assert str(refused.value) == str(wanted.value)


def test_the_raw_mask_of_a_drawing_is_made_from_its_control_mask():
    given = dict.fromkeys(("base", "reference", "raw_mask", "control_mask", "placed", "placed_mask"))
    points, boxes = [(1, 1)], [(9, 9, 15.5, 10)]
    inputs = as_inputs(["a", "b"], ["", ""], [], torch.device("cpu"), {"grid": 4}, (16, 16), points, boxes, **given)
    control = regions.drawn_control(points, boxes, 16, 4)
    np.testing.assert_array_equal(inputs.control_mask[1, 0].numpy() * 255, control)
    np.testing.assert_array_equal(inputs.raw_mask[1, 0].numpy() * 255, regions.raw_mask(control, 4))
