import itertools

import numpy as np
import pytest

from dhdiff_ray.metrics.base import merge
from dhdiff_ray.metrics.ic_lpips import CentreDistances, IcLpips, ic_lpips, spread, squared_distances


@pytest.fixture
def centres(images):
    """A smooth one, a rough one, and one that nothing is near to."""
    blank = np.full((32, 32, 3), 255, np.uint8)
    blank[::2, ::2] = 0
    return {"b-rough": images["010"], "a-smooth": images["000"], "c-far": blank}


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


def test_it_is_the_definition_pair_by_pair(standin, images, centres):
    score = ic_lpips(standin, centres, list(images), images.__getitem__)
    expected, sizes = naive(standin, images, centres, images)
    assert score.metric == "ic_lpips_standin"
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert score.conditions["cluster_sizes"] == [sizes[name] for name in sorted(sizes)] == [10, 10, 0]
    assert score.conditions["clusters_dropped"] == 1
    assert score.n == 20


def test_any_sharding_merges_to_the_same_bytes(standin, images, centres, shards):
    first = CentreDistances(standin, list(centres), np.stack(list(centres.values())))
    results = []
    for cut in shards:
        state = merge(first.observe(*shard) for shard in cut)
        clusters = first.clusters(state, size=6, seed=3)
        second = IcLpips(standin, clusters)
        order = clusters if cut is shards[0] else clusters[::-1]
        spreads = merge(
            second.observe(cluster.centre, np.stack([images[name] for name in cluster.members]))
            for cluster in order
            if len(cluster.members) > 1
        )
        results.append((b"".join(row.tobytes() for row in state.values()), clusters, second.value(spreads)))
    assert results[0] == results[1]


def test_the_order_of_the_centres_does_not_matter(standin, images, centres):
    scores = [
        ic_lpips(standin, dict(order), list(images), images.__getitem__)
        for order in (
            centres.items(),
            reversed(centres.items()),
        )
    ]
    assert scores[0] == scores[1]


def test_the_draw_from_a_large_cluster_follows_the_seed(standin, images, centres, shards):
    first = CentreDistances(standin, list(centres), np.stack(list(centres.values())))
    state = merge(first.observe(*shard) for shard in shards[0])
    draws = [tuple(c.members for c in first.clusters(state, size=4, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert [len(members) for members in draws[0]] == [4, 4, 0]
    assert all(list(members) == sorted(set(members)) for members in draws[0])


def test_a_tie_goes_to_the_last_centre(standin, images):
    first = CentreDistances(standin, ["one", "two"], np.stack([images["000"]] * 2))
    clusters = first.clusters(first.observe(["x"], images["001"][None]))
    assert [cluster.size for cluster in clusters] == [0, 1]


def test_clusters_of_one_only_have_no_value(standin, images):
    score = ic_lpips(standin, {"a": images["000"], "b": images["010"]}, ["001", "011"], images.__getitem__)
    assert score.value is None
    assert score.conditions["clusters_dropped"] == 2


def test_a_cluster_nobody_compared_is_an_error(standin, images, centres, shards):
    first = CentreDistances(standin, list(centres), np.stack(list(centres.values())))
    clusters = first.clusters(merge(first.observe(*shard) for shard in shards[0]))
    with pytest.raises(ValueError, match="2 clusters were not compared"):
        IcLpips(standin, clusters).value({})


def test_no_centres_is_an_error(standin):
    with pytest.raises(ValueError, match="centres"):
        CentreDistances(standin, [], np.zeros((0, 8, 8, 3), np.uint8))


def test_distances_hold_over_several_chunks(monkeypatch):
    monkeypatch.setattr("dhdiff_ray.metrics.ic_lpips.CHUNK", 7)
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(3, 40)).astype(np.float32), draw.normal(size=(2, 40)).astype(np.float32)
    direct = ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(a, b), direct, rtol=1e-12)
    assert spread(np.repeat(a[:1], 3, axis=0)) == pytest.approx(0, abs=1e-12)
