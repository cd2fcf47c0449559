import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from dhdiff_ray.metrics.kid import kid, kid_score


def test_it_is_torch_fidelitys_on_one_subset_of_everything():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(40, 32)).astype(np.float32), draw.normal(0.3, 1, size=(40, 32)).astype(np.float32)
    theirs = kid_features_to_metric(
        torch.from_numpy(a).double(), torch.from_numpy(b).double(), kid_subsets=1, kid_subset_size=40, verbose=False
    )
    assert kid(a, b) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)


def test_one_source_is_near_zero_and_another_is_far(standin):
    draw = np.random.default_rng(1)
    train, held_out = draw.normal(size=(2, 60, 16))
    made = {f"{i}": row for i, row in enumerate(draw.normal(2, 1, size=(60, 16)))}
    score = kid_score(standin, made, train, held_out)
    assert abs(score.reference) < 0.1 < score.value
    assert score.metric == "kid_standin"
    assert score.conditions["n_held_out"] == 60


def test_fewer_than_two_on_a_side_has_no_value():
    assert kid(np.ones((1, 4)), np.ones((5, 4))) is None
