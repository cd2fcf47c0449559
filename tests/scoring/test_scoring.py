"""One defect's scores: sums in place of a second look, and the Inception Score beside its scale."""

import numpy as np
import pytest

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.inception_score import InceptionScore
from dhdiff_ray.scoring.defect import Defect, DefectScorer, RealImages, combine


def pictures(count, seed):
    """Smooth pictures that differ in colour and grain."""
    draw = np.random.default_rng(seed)
    images = {}
    for at in range(count):
        base = draw.integers(20, 200, 3) + draw.integers(0, 50, (32, 32, 3)) * (at % 3)
        images[f"{seed}-{at:03d}.png"] = base.clip(0, 255).astype(np.uint8)
    return images


@pytest.fixture
def defect():
    made, train, held_out = pictures(23, 0), pictures(3, 1), pictures(5, 2)
    loaded = []

    def load(name):
        loaded.append(name)
        return made[name]

    real = [RealImages(tuple(side), tuple(side.values())) for side in (train, held_out)]
    return Defect("cap", "dent", tuple(made), load, None, *real), loaded


def by_name(scores):
    return {score.metric: score for score in scores}


@pytest.mark.parametrize(("size", "twice"), [(0, 0), (4, 4)])
def test_sums_that_are_kept_spare_the_second_look_at_clusters_compared_whole(defect, size, twice):
    defect, loaded = defect
    config = ScoreConfig(features="standin", metrics=("ic_lpips", "originality"), cluster_size=size, seeds=1)
    plain, keeping = DefectScorer(config), DefectScorer(config, keep_sums=True)
    expected = by_name(plain.value(defect, plain.observe(defect, defect.names)))["ic_lpips_standin"]
    loaded.clear()
    parts = [keeping.observe(defect, names) for names in (defect.names[:5], defect.names[5:])]
    states = {kind: combine(kind, [part[kind] for part in parts]) for kind in parts[0]}
    found = by_name(keeping.value(defect, states))["ic_lpips_standin"]
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.reference == expected.reference
    larger = sum(count > size > 0 for count in found.conditions["cluster_sizes"])
    whole = sum(count for count in found.conditions["cluster_sizes"] if size and 2 <= count <= size)
    assert len(loaded) == 23 + twice * larger, f"{whole} images lie in clusters that are compared whole"


def test_made_and_real_images_get_an_inception_score_at_one_number_of_images(defect):
    defect, _ = defect
    scorer = DefectScorer(ScoreConfig(features="standin", metrics=("is",), splits=2))
    parts = [scorer.observe(defect, names) for names in (defect.names[:1], defect.names[1:22], defect.names[22:])]
    kinds = {kind for part in parts for kind in part}
    states = {kind: combine(kind, [part.get(kind, {}) for part in parts]) for kind in kinds}
    found = by_name(scorer.value(defect, states))
    scale = found["inception_at_real_n_standin"]
    assert (scale.n, scale.conditions["n_of_a_part"], scale.conditions["splits"]) == (20, 5, 4)
    names = sorted(defect.names)[:20]
    images = {name: defect.load(name) for name in names}
    by_hand = InceptionScore(scorer.classifier, names, 4)
    state = by_hand.observe(names, scorer.classifier.classify(np.stack([images[n] for n in names]))[0])
    assert scale.value == pytest.approx(by_hand.value(state).value, rel=1e-12)
    real = InceptionScore(scorer.classifier, defect.held_out.names, 1)
    state = real.observe(defect.held_out.names, scorer.classifier.classify(np.stack(defect.held_out.images))[0])
    assert scale.reference == pytest.approx(real.value(state).value, rel=1e-12)
    assert found["is_standin"].reference is None, "its N is another"


def test_without_held_out_images_the_inception_score_has_no_scale(defect):
    defect, _ = defect
    alone = Defect("cap", "dent", defect.names, defect.load)
    scorer = DefectScorer(ScoreConfig(features="standin", metrics=("is",), splits=1))
    assert by_name(scorer.value(alone, scorer.observe(alone, alone.names))).keys() == {"is_standin"}
