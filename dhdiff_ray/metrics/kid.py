"""Kernel Inception Distance: how far the made images of a defect are from the real ones (SeaS reports it).

Not in the paper. The unbiased estimate of the squared maximum mean discrepancy under the cubic kernel of Binkowski et
al. (ICLR 2018), as in torch-fidelity. What we decided: with a handful of real images there are no subsets to draw, so
all images enter at once; the same figure between the training and the held-out real images gives the scale.
"""

from __future__ import annotations

import numpy as np

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.features.base import Classifier
from dhdiff_ray.records import Score


def kid_score(classifier: Classifier, made: State, train: np.ndarray, held_out: np.ndarray) -> Score:
    """KID of one defect.

    Args:
        classifier: whose pooled features these are.
        made: pooled features (d,) of the made images by name.
        train: of the real training anomalies (n, d).
        held_out: of the held-out ones (m, d).

    Returns:
        The distance of made from training images; ``reference`` is that of held-out from training images.
    """
    _, features = table(made)
    conditions = {
        "backbone": classifier.classifier,
        "weights": classifier.digest,
        "estimate": "unbiased, all images at once",
        "n_real": len(train),
        "n_held_out": len(held_out),
    }
    value, reference = kid(features, train), kid(held_out, train)
    return Score(classifier.metric_name("kid"), value, len(features), conditions, reference)


def kid(a: np.ndarray, b: np.ndarray) -> float | None:
    """The unbiased estimate between features (n, d) and (m, d); None where one side has fewer than two.

    It can be slightly negative: it is zero on average when both come from the same source.
    """
    if len(a) < 2 or len(b) < 2:
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(_within(a) + _within(b) - 2 * _kernel(a, b).mean())


def _within(x: np.ndarray) -> float:
    """Mean of the kernel over ordered pairs of different rows."""
    values = _kernel(x, x)
    return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
