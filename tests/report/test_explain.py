import numpy as np

from dhdiff_ray.report.explain import SIDE, Explained, defect_maps, draw, heat


def test_a_map_is_the_mean_over_layers_and_the_defects_tokens():
    one = {"layer": 0, "image": np.zeros((1, 3, 2, 2), np.float32)}
    one["image"][0, 1] = [[0, 0], [0, 4]]
    two = {"layer": 1, "image": np.full((1, 3, 4, 4), 2, np.float32)}
    found = defect_maps([one, two], np.array([0, 1, 0]), side=2)
    assert set(found) == {"image"}
    np.testing.assert_allclose(found["image"], [[1, 1], [1, 3]], atol=1e-5)


def test_heat_runs_from_dark_blue_to_yellow_and_bears_a_flat_map():
    colours = heat(np.array([[0.0, 1.0]]))
    assert colours[0, 0, 2] > colours[0, 0, 0]
    assert colours[0, 1].tolist() == [255, 255, 0]
    assert heat(np.ones((2, 2))).std(axis=(0, 1)).max() == 0


def test_each_model_has_a_row_of_pictures_and_one_per_step():
    picture = np.zeros((16, 16, 3), np.uint8)
    row = Explained("run: capsule", {"base": picture, "mask": picture[..., 0]}, [(1, {"image": np.eye(4)})])
    page = draw([row, row])
    assert page.shape[0] > 4 * SIDE
    assert page.dtype == np.uint8
    assert (page != 255).any()
