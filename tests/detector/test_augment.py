import numpy as np
import torch

from dhdiff_ray.config import DetectConfig
from dhdiff_ray.detector.augment import augmented
from dhdiff_ray.detector.evaluate import as_input
from dhdiff_ray.detector.train import train_localiser


def test_a_mask_moves_with_its_defect_and_the_draw_decides_how(blobs):
    images, masks = as_input(blobs[0]), torch.from_numpy(blobs[1][:, None] > 0).float()
    shown, drawn = augmented(images, masks, True, np.random.default_rng(5))
    again, other = (augmented(images, masks, True, np.random.default_rng(seed))[0] for seed in (5, 6))
    assert shown.shape == images.shape and set(drawn.unique().tolist()) == {0, 1}
    assert (shown == again).all() and (shown != other).any() and shown.abs().max() <= 1
    for image, mask, before in zip(shown, drawn, masks, strict=True):
        under = mask[0] > 0
        assert image[:, under].mean() > image[:, ~under].mean() + 0.3, "bright under its mask, as drawn"
        assert 0.7 < mask.sum() / before.sum() < 1.4


def test_an_image_is_mirrored_only_where_that_is_allowed():
    half = -torch.ones(32, 3, 24, 40)
    half[..., :20] = 0.5
    for mirror, fewest, most in ((False, 32, 32), (True, 1, 31)):
        row = augmented(half, half[:, :1] * 0, mirror, np.random.default_rng(0))[0][:, 0, 8:16].mean(1)
        assert fewest <= (row[:, :12].mean(1) > row[:, 28:].mean(1)).sum() <= most


def test_a_detector_learns_from_changed_images_too_and_its_weights_follow_the_seed(blobs):
    plain = DetectConfig(network="small", channels=8, steps=3, batch_size=4)
    changed = plain.model_copy(update={"augment": True})
    models = [train_localiser(*blobs, config, 0) for config in (plain, changed, changed)]
    first = [next(model.parameters()) for model in models]
    assert (first[1] == first[2]).all() and (first[0] != first[1]).any()
