import numpy as np
import pytest

from dhdiff_ray.pairs.placement import OWN, PASTED, Placing, place

SIDE = 64


@pytest.fixture
def pictures():
    draw = np.random.default_rng(0)
    base = draw.integers(100, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    reference = draw.integers(140, 150, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:28, 30:44] = 255
    reference[mask > 0] = 20
    return base, reference, mask


def test_pasted_as_it_is_a_defect_keeps_its_place_and_pixels(pictures):
    base, reference, mask = pictures
    placed = place(base, reference, mask, 1, PASTED)
    np.testing.assert_array_equal(placed.mask, mask)
    np.testing.assert_array_equal(placed.image, np.where(mask[..., None] > 0, reference, base))


def test_the_same_seed_places_alike_and_others_elsewhere(pictures):
    one, same, other = (place(*pictures, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, same.image)
    assert (one.mask != other.mask).any()


def test_a_placed_defect_is_as_dark_as_it_was_against_its_surroundings(pictures):
    for seed in range(8):
        placed = place(*pictures, seed)
        inside = placed.image[placed.mask > 0].mean()
        assert inside < 40
        assert abs(placed.image[placed.region == 0].mean() - 104.5) < 1
        assert 0.5 < (placed.mask > 0).sum() / (pictures[2] > 0).sum() < 2


def test_outside_the_region_the_base_is_untouched_and_the_mask_lies_inside(pictures):
    for seed in range(8):
        placed = place(*pictures, seed)
        outside = placed.region == 0
        np.testing.assert_array_equal(placed.image[outside], pictures[0][outside])
        assert not placed.mask[outside].any()


def test_a_defect_goes_where_its_surroundings_fit():
    draw = np.random.default_rng(0)
    reference = np.full((SIDE, SIDE, 3), 60, np.uint8)
    reference[:, 32:] = 200  # a step in brightness, and a defect on it
    base = np.roll(reference, -16, 1)
    base[:, -16:] = 200
    base = np.clip(base + draw.integers(-3, 4, base.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[28:36, 28:36] = 255
    placed = place(base, reference, mask, 0, Placing(mirror=False, turn=0, scale=1, warp=0, places=400))
    assert abs(np.nonzero(placed.mask)[1].mean() - (31.5 - 16)) <= 1


def test_a_defect_that_the_edge_cuts_has_no_edge_of_its_own_elsewhere(pictures):
    base, reference, _ = pictures
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:20] = 255
    for seed in range(6):
        placed = place(base, reference, mask, seed, Placing(mirror=False))
        assert placed.mask[0].all()


def test_what_cannot_be_placed_is_told(pictures):
    base, reference, mask = pictures
    with pytest.raises(ValueError, match="mask is empty"):
        place(base, reference, np.zeros_like(mask), 0)
    with pytest.raises(ValueError, match="differ in size"):
        place(base[:32], reference, mask, 0)


def test_where_a_user_draws_the_defect_goes_as_far_as_it_stays_in_the_image(pictures):
    middle, corner = np.zeros((2, SIDE, SIDE), np.uint8)
    middle[39:42, 19:22] = corner[62:, 62:] = 255
    placed = place(*pictures, 0, OWN, middle)
    ys, xs = np.nonzero(placed.mask)
    assert (abs(ys.mean() - 40) <= 1, abs(xs.mean() - 20) <= 1) == (True, True)
    assert (place(*pictures, 0, OWN, corner).mask > 0).sum() == (pictures[2] > 0).sum()


def test_a_defect_at_the_very_edge_never_vanishes(pictures):
    base, reference, _ = pictures
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[0, 30:33] = 255
    assert all(place(base, reference, mask, seed).mask.any() for seed in range(40))


def test_no_defect_lies_beside_the_product():
    base, reference = (np.full((SIDE, SIDE, 3), 40, np.uint8) for _ in range(2))
    base[20:44, 8:56] = reference[20:44, 8:56] = 180
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[28:33, 12:17] = 255
    reference[mask > 0] = 90
    for seed in range(12):
        ys, xs = np.nonzero(place(base, reference, mask, seed, Placing(mirror=False)).mask)
        assert ((ys >= 20) & (ys < 44) & (xs >= 8) & (xs < 56)).mean() >= 0.9
