import numpy as np
import pytest

from dhdiff_ray.metrics.features.standin import StandinFeatures


@pytest.fixture(scope="session")
def standin():
    return StandinFeatures()


@pytest.fixture(scope="session")
def images():
    """Twenty images by name, of two kinds: smooth ramps and noise."""
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 32)[None, :, None]
    smooth = [ramp * draw.uniform(0.5, 1.2, 3) + draw.normal(0, 3, (32, 32, 3)) for _ in range(10)]
    noise = draw.uniform(0, 255, (32, 32, 3))
    rough = [noise + draw.normal(0, 20, noise.shape) for _ in range(10)]
    return {f"{i:03d}": np.clip(image, 0, 255).astype(np.uint8) for i, image in enumerate(smooth + rough)}


@pytest.fixture
def shards(images):
    """The images cut two ways, the second with its shards and their images in disorder."""
    names = sorted(images)
    whole = [names]
    parts = [names[13:][::-1], names[:1], names[5:13], names[1:5][::-1]]
    return [[(part, np.stack([images[name] for name in part])) for part in cut] for cut in (whole, parts)]
