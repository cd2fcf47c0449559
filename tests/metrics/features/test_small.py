"""The small networks with random weights, and the real ones where their files are at hand (DHDIFF_SMALL_WEIGHTS)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2, squeezenet1_0

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features.choose import open_classifier, open_perceiver
from dhdiff_ray.metrics.features.small import TAPS
from dhdiff_ray.metrics.features.weights import CLASSIFIER_FILE, PERCEIVER_FILE

FOLDER = os.environ.get("DHDIFF_SMALL_WEIGHTS", "")


def test_the_small_networks_are_labelled_standins_whatever_their_weights(tmp_path):
    torch.manual_seed(0)
    torch.save(mobilenet_v2(num_classes=1001).state_dict(), tmp_path / CLASSIFIER_FILE)
    torch.save(squeezenet1_0().state_dict(), tmp_path / PERCEIVER_FILE)
    config = ScoreConfig(features="small", weights_dir=str(tmp_path))
    perceiver, classifier = open_perceiver(config), open_classifier(config)
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    rows = perceiver.perceptual(images)
    assert rows.shape[0] == 2
    np.testing.assert_allclose((rows**2).sum(1), len(TAPS), rtol=1e-4)  # unit length at each pixel of each layer
    probabilities, pooled = classifier.classify(images)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert pooled.shape == (2, 1280)
    assert perceiver.metric_name("ic_lpips") == "ic_lpips_small"


@pytest.mark.skipif(not Path(FOLDER, CLASSIFIER_FILE).is_file(), reason="set DHDIFF_SMALL_WEIGHTS to their folder")
def test_the_small_real_networks_tell_a_change_of_content_from_a_little_noise():
    config = ScoreConfig(features="small", weights_dir=FOLDER)
    perceiver, classifier = open_perceiver(config), open_classifier(config)
    rows, columns = np.mgrid[:128, :128]
    stripes = np.repeat((np.sin(columns / 5) * 100 + 128)[..., None], 3, 2)
    disc = np.repeat(((np.hypot(rows - 64, columns - 64) < 40) * 200.0)[..., None], 3, 2)
    noisy = stripes + np.random.default_rng(0).normal(0, 4, stripes.shape)
    a, b, c = perceiver.perceptual(np.stack([stripes, noisy.clip(0, 255), disc]).astype(np.uint8))
    assert ((a - b) ** 2).sum() < 0.5 * ((a - c) ** 2).sum()
    probabilities, pooled = classifier.classify(np.stack([stripes, disc]).astype(np.uint8))
    assert probabilities.shape == (2, 1001)
    assert pooled.shape == (2, 1280)
    assert perceiver.metric_name("ic_lpips") == "ic_lpips_small"
