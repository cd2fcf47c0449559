import numpy as np
import pytest

from dhdiff_ray.metrics.overlap import overlap_rows, overlap_score


def square(side, top, left, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def test_a_mirrored_copy_overlaps_wholly_and_a_mask_of_half_the_width_by_half():
    half = square(16, 4, 8)
    half[:, 16:] = 0
    rows = overlap_rows(
        ["mirrored", "half", "elsewhere"], [square(16, 44, 8), half, square(4, 30, 30)], [square(16, 4, 8)]
    )
    assert [rows[name][0] for name in ("mirrored", "half", "elsewhere")] == pytest.approx([1, 0.5, 0])


def test_masks_of_another_size_are_compared_and_small_ones_do_not_vanish():
    rows = overlap_rows(["large", "dot"], [square(64, 16, 32, 256), square(1, 18, 34, 256)], [square(16, 4, 8)])
    assert rows["large"][0] == pytest.approx(1)
    assert rows["dot"][0] == pytest.approx(1 / 16 / 256)


def test_the_score_is_the_median_beside_that_of_held_out_masks_and_counts_copies():
    train = [square(16, 4, 8)]
    made = overlap_rows(["a", "b", "c"], [train[0], square(8, 4, 8), square(8, 4, 8)], train)
    score = overlap_score(made, train, [square(8, 4, 8)])
    assert (score.metric, score.n, score.value, score.reference) == ("mask_overlap", 3, 0.25, 0.25)
    assert (score.conditions["largest"], score.conditions["copies"]) == (1, 1)


def test_empty_masks_and_no_real_ones_give_no_value():
    empty = overlap_rows(["a"], [square(0, 0, 0)], [square(4, 0, 0)])
    assert overlap_score(empty, [square(4, 0, 0)], []).value is None
    assert overlap_score(overlap_rows(["a"], [square(4, 0, 0)], []), [], []).value is None
