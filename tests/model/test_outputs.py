import pytest
import torch
from scipy.ndimage import distance_transform_edt

from dhdiff_ray.model.outputs import blended, distance_to, faded, share_of_drawn


@pytest.fixture
def raw():
    inside = torch.zeros(1, 1, 12, 20)
    inside[..., 8:] = 1
    return inside


def mask_at(*columns):
    mask = torch.zeros(1, 1, 12, 20)
    mask[..., list(columns)] = 1
    return mask


def test_an_image_is_blended_from_a_raw_masks_edge_inwards_and_not_at_the_pictures(raw):
    shown = blended(raw, 2)[0, 0]
    assert torch.equal(shown, shown[:1].expand(12, -1))
    torch.testing.assert_close(shown[0, 6:13], torch.tensor([0.0, 0.0, 0.2, 0.6, 1, 1, 1]))


def test_distances_are_those_of_the_straight_line_for_each_picture_of_a_batch():
    regions = (torch.rand((3, 1, 17, 23), generator=torch.Generator().manual_seed(0)) > 0.97).float()
    expected = [distance_transform_edt(1 - region[0].numpy()) for region in regions]
    torch.testing.assert_close(distance_to(regions)[:, 0].double(), torch.stack([*map(torch.from_numpy, expected)]))
    assert torch.isinf(distance_to(torch.zeros(1, 1, 4, 6))).all()


def test_what_is_drawn_beside_the_mask_is_shown_less_towards_the_raw_masks_edge_only(raw):
    shown = faded(raw, mask_at(15), 1)[0, 0]
    assert torch.equal(shown, shown[:1].expand(12, -1))
    assert (shown[:, :8] == 0).all() and (shown[:, 14:17] == 1).all()
    assert (shown[0, 7:15].diff() > 0).all()
    torch.testing.assert_close(shown[0, 10], torch.tensor(3 / 7))  # 3 pixels to the edge, 5 - 1 to the mask
    torch.testing.assert_close(shown[0, 19], torch.tensor(12 / 15))  # the picture's edge counts for nothing


def test_nothing_is_shown_where_the_mask_is_empty_and_all_where_nothing_of_the_product_is_kept(raw):
    assert not faded(raw, mask_at(), 1).any()
    assert not faded(torch.ones_like(raw), mask_at(), 1).any()
    assert (faded(torch.ones_like(raw), mask_at(3), 1) == 1).all()


def test_a_mask_that_reaches_the_raw_masks_edge_is_still_blended_there(raw):
    float_mask = 0.6 * mask_at(8, 9)
    both = share_of_drawn(raw, float_mask, 2, blend=True, fade=True)
    assert torch.equal(both[..., :10], blended(raw, 2)[..., :10])
    assert torch.equal(both[..., 12:], faded(raw, mask_at(8, 9), 1)[..., 12:])
    assert torch.equal(share_of_drawn(raw, float_mask, 2, blend=False, fade=False), raw)
