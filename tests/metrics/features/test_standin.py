import numpy as np

from dhdiff_ray.metrics.features.standin import StandinFeatures


def test_weights_are_the_same_everywhere(standin, images):
    again = StandinFeatures()
    assert again.digest == standin.digest == "3d15bef81264e64b"
    image = images["003"][None]
    assert np.array_equal(again.perceptual(image), standin.perceptual(image))


def test_probabilities_and_features_have_their_shapes_at_any_resolution(standin):
    for side in (16, 64, 100):
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
        probabilities, features = standin.classify(images)[0], standin.perceptual(images)
        assert probabilities.dtype == np.float64
        np.testing.assert_allclose(probabilities.sum(1), 1)
        assert features.dtype == np.float32
        assert features.shape == (2, 16 * 64 * 64 + 32 * 32 * 32 + 32 * 16 * 16)


def test_a_row_does_not_depend_on_its_batch(standin, images):
    stack = np.stack(list(images.values()))
    whole = standin.perceptual(stack)
    assert all(np.array_equal(whole[i], standin.perceptual(stack[i : i + 1])[0]) for i in range(len(stack)))
