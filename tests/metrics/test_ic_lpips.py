import itertools
from dataclasses import replace

import numpy as np
import pytest

from dhdiff_ray.metrics.base import add, merge
from dhdiff_ray.metrics.ic_lpips import (
    CentreDistances,
    IcLpips,
    add_to,
    count_in,
    ic_lpips,
    mean_distance,
    squared_distances,
)
from dhdiff_ray.metrics.profiles import PROFILES

DEFAULT = PROFILES["anomalydiffusion"]


@pytest.fixture
def centres(images):
    """A smooth one, a rough one, and one that nothing is near to."""
    blank = np.full((32, 32, 3), 255, np.uint8)
    blank[::2, ::2] = 0
    return {"b-rough": images["010"], "a-smooth": images["000"], "c-far": blank}


def capped(size):
    return replace(DEFAULT, cap=size)


def naive(standin, images, centres, members):
    """The definition, pair by pair."""
    features = {name: standin.perceptual(image[None])[0].astype(float) for name, image in (images | centres).items()}
    clusters = {centre: [] for centre in centres}
    for name in members:
        clusters[min(centres, key=lambda c: ((features[name] - features[c]) ** 2).sum())].append(name)
    means = [
        np.mean([((features[a] - features[b]) ** 2).sum() for a, b in itertools.combinations(own, 2)])
        for own in clusters.values()
        if len(own) >= 2
    ]
    return np.mean(means), {centre: len(own) for centre, own in clusters.items()}


@pytest.mark.parametrize("profile", ["anomalydiffusion", "full", "cdc"])
def test_it_is_the_definition_pair_by_pair(standin, images, centres, profile):
    score = ic_lpips(standin, centres, list(images), images.__getitem__, PROFILES[profile])
    expected, sizes = naive(standin, images, centres, images)
    assert score.metric == "ic_lpips_standin"
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert score.conditions["cluster_sizes"] == [sizes[name] for name in sorted(sizes)] == [10, 10, 0]
    assert score.conditions["clusters_dropped"] == 1
    assert score.conditions["profile"] == profile
    assert score.n == 20


def partitions(names, seed):
    """Shards of any size: some empty, some of one image, in any order."""
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(names).tolist()
    cuts = sorted(draw.integers(0, len(names) + 1, size=int(draw.integers(1, 12))))
    return [shuffled[a:b] for a, b in itertools.pairwise([0, *cuts, cuts[-1], len(names)])]


@pytest.mark.parametrize("seed", range(6))
def test_any_sharding_in_any_order_gives_the_same_number(standin, images, centres, seed):
    first = CentreDistances(standin, list(centres), list(centres.values()))
    values = []
    for cut in (partitions(list(images), seed), [list(images)]):
        shards = [first.observe(part, [images[name] for name in part]) for part in cut]
        clusters = first.clusters(merge(shards), seeds=(0, 1, 2))
        second = IcLpips(standin, clusters, capped(6))
        values.append(second.value(merge(second.observe(c.centre, images.__getitem__) for c in clusters[::-1])))
    assert values[0].value == pytest.approx(values[1].value, rel=1e-12)
    assert values[0].conditions["cluster_sizes"] == values[1].conditions["cluster_sizes"]


@pytest.mark.parametrize("seed", range(3))
def test_in_one_pass_the_sums_of_any_shards_add_up_to_the_whole(standin, images, centres, seed):
    first = CentreDistances(standin, list(centres), list(centres.values()), PROFILES["full"])
    added, state = {}, {}
    for part in partitions(list(images), seed):
        sums = {}
        state |= {name: add_to(first, sums, name, images[name]) for name in part}
        added = add([added, sums])
    second = IcLpips(standin, first.clusters(state), PROFILES["full"])
    once = ic_lpips(standin, centres, list(images), images.__getitem__, PROFILES["full"])
    assert second.value(second.compare(images.__getitem__, added)).value == pytest.approx(once.value, rel=1e-9)


def test_only_images_of_a_cluster_beyond_the_cap_are_looked_at_twice(standin, images, centres):
    looked = []

    def load(name):
        looked.append(name)
        return images[name]

    for rule, twice in ((PROFILES["full"], 0), (DEFAULT, 0), (capped(4), 2 * 4)):
        looked.clear()
        once = ic_lpips(standin, centres, list(images), load, rule)
        assert len(looked) == len(images) + twice
        first = CentreDistances(standin, list(centres), list(centres.values()), rule)
        clusters = first.clusters(first.observe(list(images), list(images.values())))
        second = IcLpips(standin, clusters, rule)
        assert once.value == pytest.approx(second.value(second.compare(images.__getitem__)).value, rel=1e-12)


def test_the_order_of_the_centres_does_not_matter(standin, images, centres):
    orders = (centres.items(), reversed(centres.items()))
    scores = [ic_lpips(standin, dict(order), list(images), images.__getitem__) for order in orders]
    assert scores[0] == scores[1]


def test_the_draws_from_a_large_cluster_follow_the_seeds_and_spread_the_value(standin, images, centres):
    first = CentreDistances(standin, list(centres), list(centres.values()), capped(4))
    state = first.observe(list(images), list(images.values()))
    large, other, empty = first.clusters(state, seeds=(0, 1, 2))
    assert large == first.clusters(state, seeds=(0, 1, 2))[0]
    assert len(set(large.draws)) > 1
    assert [len(draw) for draw in large.draws] == [len(draw) for draw in other.draws] == [4, 4, 4]
    assert all(list(draw) == sorted(set(draw)) for draw in large.draws)
    assert empty.members == ()
    score = ic_lpips(standin, centres, list(images), images.__getitem__, capped(4), seeds=(0, 1, 2))
    one = [ic_lpips(standin, centres, list(images), images.__getitem__, capped(4), seeds=(s,)).value for s in (0, 1, 2)]
    assert score.value == pytest.approx(np.mean(one), rel=1e-9)
    assert score.conditions["std"] == pytest.approx(np.std(one, ddof=1), rel=1e-6)
    assert score.conditions["seeds"] == [0, 1, 2]


def test_where_nothing_is_drawn_there_is_no_spread_over_seeds(standin, images, centres):
    score = ic_lpips(standin, centres, list(images), images.__getitem__, seeds=(0, 1))
    assert score.conditions["std"] is None
    assert score.conditions["std_over_clusters"] > 0


def test_a_tie_goes_to_the_last_centre(standin, images):
    first = CentreDistances(standin, ["one", "two"], [images["000"]] * 2)
    clusters = first.clusters(first.observe(["x"], [images["001"]]))
    assert [cluster.size for cluster in clusters] == [0, 1]


def test_clusters_of_one_only_have_no_value(standin, images):
    score = ic_lpips(standin, {"a": images["000"], "b": images["010"]}, ["001", "011"], images.__getitem__)
    assert score.value is None
    assert score.conditions["clusters_dropped"] == 2


def test_dfmgan_counts_a_cluster_of_one_as_zero_and_reports_the_value_without(standin, images, centres):
    rule = replace(PROFILES["dfmgan"], raw_centres=False)
    score = ic_lpips(standin, centres, list(images), images.__getitem__, rule)
    without = ic_lpips(standin, centres, list(images), images.__getitem__).value
    assert score.conditions["value_without_zeros"] == pytest.approx(without, rel=1e-9)
    assert score.value == pytest.approx(without * 2 / 3, rel=1e-9)
    assert score.conditions["clusters_counted_as_zero"] == 1


def test_a_cluster_nobody_compared_is_an_error(standin, images, centres):
    first = CentreDistances(standin, list(centres), list(centres.values()))
    clusters = first.clusters(first.observe(list(images), list(images.values())))
    with pytest.raises(ValueError, match="2 clusters were not compared"):
        IcLpips(standin, clusters).value({})


def test_no_centres_is_an_error(standin):
    with pytest.raises(ValueError, match="centres"):
        CentreDistances(standin, [], [])


def test_features_that_are_no_numbers_name_the_image(standin, images, centres, monkeypatch):
    first = CentreDistances(standin, list(centres), list(centres.values()))
    monkeypatch.setattr(type(standin), "_perceptual", lambda *_: np.array([np.nan, 1.0], np.float32))
    with pytest.raises(ValueError, match="features of 003 are not finite"):
        first.observe(["003"], [images["003"]])


def test_distances_hold_over_several_chunks(monkeypatch):
    monkeypatch.setattr("dhdiff_ray.metrics.ic_lpips.CHUNK", 7)
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(3, 40)).astype(np.float32), draw.normal(size=(2, 40)).astype(np.float32)
    direct = ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(a, b), direct, rtol=1e-5)


def test_the_mean_over_pairs_is_twice_the_unbiased_variance():
    draw = np.random.default_rng(1)
    features = draw.normal(size=(9, 50)).astype(np.float32)
    sums = {}
    for row in features:
        count_in(sums, "all", row)
    pairs = [((a.astype(float) - b) ** 2).sum() for a, b in itertools.combinations(features, 2)]
    assert mean_distance(sums["all"]) == pytest.approx(np.mean(pairs), rel=1e-9)
    assert np.isnan(mean_distance(np.zeros(2)))
