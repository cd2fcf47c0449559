import numpy as np
import pytest

from dhdiff_ray.metrics.detection import agreement, auroc, average_precision, f1_max, localisation
from dhdiff_ray.metrics.pro import pro


def test_auroc_and_ap_by_hand():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    assert auroc(labels, scores) == pytest.approx(3 / 4)
    assert average_precision(labels, scores) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("labels", [np.zeros(4), np.ones(4)])
def test_auroc_of_one_class_is_none(labels):
    assert auroc(labels, np.arange(4)) is None


def test_pixels_of_normal_images_count():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0, 0] = 255
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 0] = 0.5
    clean = localisation(masks, maps, np.array([0.5, 0.0]))
    figures = ("image_auroc", "pixel_auroc", "pixel_ap", "image_ap", "image_f1_max", "pixel_f1_max", "pro")
    assert clean == {**dict.fromkeys(figures, 1.0), "n_good": 1, "n_defect": 1}
    maps[1] = 0.9
    assert localisation(masks, maps, np.array([0.5, 0.9]))["pixel_ap"] == pytest.approx(1 / 17)


def test_f1_max_is_the_best_over_every_threshold():
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.91, 0.9, 0.89, 0.1])
    assert f1_max(labels, scores) == pytest.approx(0.8)
    assert f1_max(np.zeros(4), scores) is None


def test_with_the_peers_masks_only_pro_keeps_the_soft_edge():
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, :2] = 255
    strict = np.zeros_like(masks)
    strict[0, 0] = 255
    maps = (strict > 0).astype(np.float32)
    found = localisation(masks, maps, np.array([1.0]), strict)
    assert found["pixel_ap"] == 1.0
    assert found["pro"] < 1


def test_agreement_counts_an_empty_mask_as_no_overlap():
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, :2] = 0.9
    masks = np.zeros((3, 4, 4), np.uint8)
    masks[0, :2] = 255
    masks[1, :1] = 255
    result = agreement(masks, maps)
    assert result["iou"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert result["nonempty"] == pytest.approx(2 / 3)
    assert result["n"] == 3
    assert result["ap"] == pytest.approx(12 / 16)


def test_agreement_of_empty_masks_only_has_no_ap():
    assert agreement(np.zeros((2, 4, 4)), np.zeros((2, 4, 4))) == {"iou": 0.0, "ap": None, "nonempty": 0.0, "n": 2}


def test_agreement_of_nothing_names_the_remedy():
    with pytest.raises(ValueError, match="submit synthesize"):
        agreement(np.zeros((0, 4, 4)), np.zeros((0, 4, 4)))


@pytest.mark.parametrize("at", [(0, 0, 0), (1, 3, 3)])
def test_maps_that_hold_no_numbers_have_no_figures(at):
    masks, maps = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4))
    masks[0, :2] = 255  # the second pair's mask is empty
    maps[at] = np.nan
    for figure in (agreement, pro):
        with pytest.raises(ValueError, match=f"1 of 2 maps hold values that are no numbers.*number {at[0]}"):
            figure(masks, maps)
