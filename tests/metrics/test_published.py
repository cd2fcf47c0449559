import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dhdiff_ray.metrics.ic_lpips import squared_distances
from dhdiff_ray.metrics.published import (
    INCEPTION_FILE,
    VGG_FILE,
    PublishedFeatures,
    lpips_features,
    lpips_network,
    lpips_weights,
)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lpips_network(None)


def test_lpips_is_a_squared_distance_between_features(network):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    images[1] = images[0] * 0.9
    with torch.inference_mode():
        features = lpips_features(network, images).numpy()
        pairs = [[network(a[None], b[None]).item() for b in images] for a in images]
    ours = squared_distances(features, features)
    assert np.array(pairs)[0, 2] > 1e-4
    np.testing.assert_allclose(ours, pairs, rtol=1e-4, atol=1e-7)


def test_negative_linear_weights_are_refused(network, monkeypatch):
    monkeypatch.setattr("dhdiff_ray.metrics.published.lpips_weights", lambda _: [-lpips_weights(network)[0]])
    with pytest.raises(ValueError, match="negative"):
        lpips_network(network_weights(network))


def test_both_networks_run_from_local_files(network, tmp_path):
    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *_args, **_kwargs):
            """Keep the random weights."""

    empty = tmp_path / "empty.pth"
    torch.save({}, empty)
    inception = Unloaded("x", ["logits_unbiased"], feature_extractor_weights_path=str(empty))
    torch.save(inception.state_dict(), tmp_path / INCEPTION_FILE)
    torch.save(network_weights(network), tmp_path / VGG_FILE)

    features = PublishedFeatures(str(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    probabilities, perceptual = features.probabilities(image), features.perceptual(image)
    assert features.metric_name("is") == "is"
    assert probabilities.shape == (1, 1008) and probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1)
    assert perceptual.shape == (1, 64 * 256**2 + 128 * 128**2 + 256 * 64**2 + 512 * 32**2 + 512 * 16**2)
    (logits,) = inception(torch.from_numpy(image).permute(0, 3, 1, 2))
    np.testing.assert_allclose(probabilities, torch.softmax(logits.double(), 1).numpy(), rtol=1e-5)
    assert len(features.digest) == 16


def network_weights(network):
    """VGG's weights under torchvision's names."""
    return {f"features.{name.split('.', 1)[1]}": tensor for name, tensor in network.net.state_dict().items()}
