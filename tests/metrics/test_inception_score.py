import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from dhdiff_ray.metrics.base import merge
from dhdiff_ray.metrics.inception_score import InceptionScore, inception_scores


@pytest.mark.parametrize(("count", "splits"), [(40, 10), (37, 4), (12, 1)])
def test_it_is_torch_fidelitys_score(count, splits):
    logits = torch.randn(count, 20, generator=torch.Generator().manual_seed(count)) * 3
    scores = inception_scores(torch.softmax(logits.double(), dim=1).numpy(), splits)
    theirs = isc_features_to_metric(logits, splits=splits)
    assert scores.mean() == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert scores.std() == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_images_that_are_each_of_one_class_score_the_number_of_classes():
    assert inception_scores(np.eye(4).repeat(3, axis=0), 1)[0] == pytest.approx(4)
    assert inception_scores(np.full((6, 4), 0.25), 2).tolist() == [1, 1]


def test_any_sharding_merges_to_the_same_bytes(standin, shards):
    metric = InceptionScore(standin, splits=2)
    whole, parts = (merge(metric.observe(*shard) for shard in cut) for cut in shards)
    assert list(whole) == list(parts)
    assert all(whole[name].tobytes() == parts[name].tobytes() for name in whole)
    assert metric.value(whole) == metric.value(parts)


def test_a_standin_score_says_so_and_carries_its_conditions(standin, shards):
    metric = InceptionScore(standin, splits=2)
    score = metric.value(merge(metric.observe(*shard) for shard in shards[0]))
    assert score.metric == "is_standin"
    assert score.n == 20
    assert score.value > 1
    assert {"profile", "backbone", "weights", "splits", "seed", "std"} <= set(score.conditions)
    assert "stand-in" in score.conditions["backbone"]


def test_fewer_images_than_splits_names_the_flag(standin, shards):
    metric = InceptionScore(standin, splits=30)
    with pytest.raises(ValueError, match=r"--set score\.splits=20"):
        metric.value(merge(metric.observe(*shard) for shard in shards[0]))
