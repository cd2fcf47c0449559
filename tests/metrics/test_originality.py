import numpy as np

from dhdiff_ray.metrics.ic_lpips import CentreDistances
from dhdiff_ray.metrics.originality import originality


def test_a_copy_is_flagged_and_named_and_new_images_are_not(standin, images):
    train, held_out = {n: images[n] for n in ("000", "010", "011")}, {n: images[n] for n in ("001", "012")}
    first = CentreDistances(standin, list(train), list(train.values()))
    made = {"copy": np.clip(train["010"].astype(int) + 1, 0, 255).astype(np.uint8), "new": images["015"]}
    rows = first.observe(list(made), list(made.values()))
    score = originality(first, rows, first.observe(list(held_out), list(held_out.values())))
    assert score.metric == "originality_standin"
    assert score.conditions["copies"] == 1
    assert score.conditions["copies_named"] == ["copy of 010"]
    assert score.reference > score.conditions["copy_below"] > score.conditions["least"]
    assert (score.n, score.conditions["n_held_out"]) == (2, 2)


def test_with_one_training_image_and_none_held_out_nothing_can_be_flagged(standin, images):
    first = CentreDistances(standin, ["a"], [images["000"]])
    score = originality(first, first.observe(["x"], [images["000"]]), {})
    assert score.reference is None
    assert (score.conditions["copy_below"], score.conditions["copies"]) == (None, 0)
