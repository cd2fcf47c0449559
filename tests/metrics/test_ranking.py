import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from dhdiff_ray.metrics.ranking import Ranking


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), st.sampled_from([1, 3, 10**6]))
def test_the_figures_are_sklearns_however_many_scores_are_alike_and_whatever_their_sign(seed, kind, levels):
    draw = np.random.default_rng(seed)
    scores = (np.round(draw.normal(size=200) * levels) / levels).astype(kind)
    labels = np.append(draw.random(198) < 0.2, [True, False])
    ranked = Ranking.of(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert ranked.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ranked.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert ranked.f1_max == pytest.approx(f1.max(), abs=1e-12)


def test_zero_and_minus_zero_are_one_score():
    scores = np.array([0.0, -0.0], np.float32)
    assert Ranking.of(np.array([0, 1]), scores).auroc == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_finite_number_is_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        Ranking.of(np.array([0, 1]), np.array([0.5, bad]))


def test_scores_that_do_not_belong_to_the_labels_are_refused():
    with pytest.raises(ValueError, match="2 labels and 3 scores"):
        Ranking.of(np.array([0, 1]), np.array([0.5, 0.1, 0.2]))
