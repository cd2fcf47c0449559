import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from dhdiff_ray.metrics.base import add
from dhdiff_ray.metrics.inception_score import InceptionScore


def scored(standin, probabilities, splits, cuts=()):
    names = [f"{i:04d}" for i in range(len(probabilities))]
    metric = InceptionScore(standin, names, splits)
    parts = np.split(np.random.default_rng(len(cuts)).permutation(len(names)), cuts)
    return metric.value(add(metric.observe([names[i] for i in part], probabilities[part]) for part in parts))


@pytest.mark.parametrize(("count", "splits"), [(40, 10), (37, 4), (12, 1)])
def test_it_is_torch_fidelitys_score(standin, count, splits):
    logits = torch.randn(count, 20, generator=torch.Generator().manual_seed(count)) * 3
    score = scored(standin, torch.softmax(logits.double(), dim=1).numpy(), splits)
    theirs = isc_features_to_metric(logits, splits=splits)
    assert score.value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    if splits > 1:
        assert score.conditions["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_images_that_are_each_of_one_class_score_the_number_of_classes(standin):
    assert scored(standin, np.eye(4).repeat(3, axis=0), 1).value == pytest.approx(4)
    assert scored(standin, np.full((6, 4), 0.25), 2).value == pytest.approx(1)


@pytest.mark.parametrize("cuts", [(0,), (1, 2, 3), (5, 5, 20, 39, 40), tuple(range(40))])
def test_any_sharding_gives_the_same_number(standin, cuts):
    p = np.random.default_rng(0).dirichlet(np.full(16, 0.1), size=40)
    assert scored(standin, p, 10, cuts).value == pytest.approx(scored(standin, p, 10).value, rel=1e-12)


def test_a_state_does_not_grow_with_the_images(standin):
    p = np.full((40, 4), 0.25)
    metric = InceptionScore(standin, [str(i) for i in range(40)], 2)
    one, all_of_them = (metric.observe([str(i) for i in range(n)], p[:n]) for n in (1, 40))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in all_of_them.items()}


def test_a_standin_score_says_so_and_carries_its_conditions(standin):
    score = scored(standin, np.random.default_rng(0).dirichlet(np.ones(5), size=20), 2)
    assert score.metric == "is_standin"
    assert score.n == 20
    assert score.value > 1
    assert {"profile", "backbone", "weights", "splits", "seed", "std"} <= set(score.conditions)
    assert "stand-in" in score.conditions["backbone"]


def test_fewer_images_than_splits_names_the_flag(standin):
    with pytest.raises(ValueError, match=r"--set score\.splits=20"):
        InceptionScore(standin, [str(i) for i in range(20)], splits=30)


def test_an_image_that_was_left_out_or_seen_twice_is_noticed(standin):
    p = np.full((4, 3), 1 / 3)
    metric = InceptionScore(standin, list("abcd"), 2)
    part, whole = metric.observe(list("abc"), p[:3]), metric.observe(list("abcd"), p)
    for state in (part, add([whole, part]), {}):
        with pytest.raises(ValueError, match="not each of 4 once"):
            metric.value(state)


def test_numbers_that_are_none_are_refused_with_the_images_name(standin):
    metric = InceptionScore(standin, list("ab"), 1)
    with pytest.raises(ValueError, match="output for b is not finite"):
        metric.observe(list("ab"), np.array([[0.5, 0.5], [np.nan, 0.5]]))
