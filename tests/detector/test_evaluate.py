import numpy as np
import pytest

from dhdiff_ray.detector.evaluate import image_scores, pooling_window, predict
from dhdiff_ray.detector.unet import Localiser, build


def test_the_window_is_draems_at_256_and_odd_everywhere():
    assert pooling_window(256) == 21
    assert pooling_window(64) == 5
    assert all(pooling_window(side) % 2 == 1 for side in range(16, 512))


def test_one_hot_pixel_scores_less_than_a_region():
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, 10, 10] = 1
    maps[1, 20:30, 20:30] = 0.5
    dot, region = image_scores(maps)
    assert dot == pytest.approx(1 / 25)
    assert region == pytest.approx(0.5)


def test_maps_do_not_depend_on_how_images_are_batched():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    model = Localiser(4)
    whole = predict(model, images)
    assert whole.shape == (5, 16, 16) and whole.dtype == np.float32
    np.testing.assert_allclose(whole, predict(model, images, batch_size=2), atol=1e-6)


@pytest.mark.parametrize("network", ["small", "draem"])
def test_sides_that_cannot_be_halved_are_refused(network):
    with pytest.raises(ValueError, match=r"data\.resolution"):
        predict(build(network, 4), np.zeros((1, 20, 20, 3), np.uint8))
