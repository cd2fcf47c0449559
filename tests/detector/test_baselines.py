import numpy as np
import pytest

from dhdiff_ray.detector.baselines import NormalOnly, cut_paste, paste_defects, perlin, perlin_paste
from dhdiff_ray.metrics.detection import average_precision


@pytest.fixture(scope="module")
def normals():
    draw = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 64)[None, None, :, None]
    return (ramp + draw.normal(0, 4, (6, 64, 64, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("paste", [cut_paste, perlin_paste])
def test_pasted_images_change_inside_their_masks_only_and_follow_the_seed(paste, normals):
    images, masks = paste(normals, 12, 3)
    again, other = paste(normals, 12, 3), paste(normals, 12, 4)
    assert images.shape == (12, 64, 64, 3) and set(np.unique(masks)) <= {0, 255}
    assert (images == again[0]).all() and (masks == again[1]).all()
    assert (masks != other[1]).any()
    for image, mask in zip(images, masks, strict=True):
        outside = mask == 0
        assert any((image[outside] == normal[outside]).all() for normal in normals)
    assert (masks.reshape(12, -1).any(axis=1)).sum() >= 8


def test_real_defects_lie_on_normal_images_and_an_empty_mask_is_left_out(normals):
    images, masks = normals[:3].copy(), np.zeros((3, 64, 64), np.uint8)
    for at in range(2):
        images[at, 20:30, 20:32], masks[at, 20:30, 20:32] = (250, 10, 10), 255
    made, places = paste_defects(images, masks, normals[3:], 5)
    again, other = paste_defects(images, masks, normals[3:], 5), paste_defects(images, masks, normals[3:], 6)
    assert made.shape == (2, 64, 64, 3) and set(np.unique(places)) == {0, 255}
    assert (made == again[0]).all() and (made != other[0]).any()
    for image, mask in zip(made, places, strict=True):
        assert image[mask > 0].mean(0)[0] > 200, "the defect itself is there"
        assert any((image[mask == 0] == normal[mask == 0]).mean() > 0.8 for normal in normals[3:])
    with pytest.raises(ValueError, match=r"leave pasted out of detect\.baselines"):
        paste_defects(images[2:], masks[2:], normals, 5)


def test_cut_paste_pastes_one_rectangle_of_the_papers_size(normals):
    for mask in cut_paste(normals, 20, 0)[1] > 0:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert 0.015 <= mask.mean() <= 0.165


def test_perlin_noise_is_smooth_and_of_the_scale_asked_for():
    coarse, fine = (perlin((64, 64), n, n, np.random.default_rng(0)) for n in (2, 16))
    assert np.abs(coarse).max() <= 1.01
    assert np.abs(np.diff(coarse)).mean() < 0.4 * np.abs(np.diff(fine)).mean()


def test_normal_only_sees_what_is_not_normal(normals):
    images, masks = normals[4:].copy(), np.zeros((2, 64, 64))
    images[0, 20:30, 20:30] = 255
    masks[0, 20:30, 20:30] = 1
    assert average_precision(masks, NormalOnly(normals[:4]).predict(images)) > 0.5
    with pytest.raises(ValueError, match="two normal training images"):
        NormalOnly(normals[:1])


def test_nothing_to_paste_onto_is_said():
    with pytest.raises(ValueError, match="there are none"):
        cut_paste(np.zeros((0, 8, 8, 3), np.uint8), 1, 0)
