"""Inception Score in torch-fidelity's definition, computable in parts (section IV-C).

One score per defect; categories and runs are means of those. Shuffling is torch-fidelity's (``RandomState(2020)`` over
the images in the order of their names), so with its network the value is the number its command line prints. It
depends on how many images there are: never compare two scores of different n. Nothing is selected on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.features import FeatureExtractor
from dhdiff_ray.records import Score

SHUFFLE_SEED = 2020
"""torch-fidelity's seed."""


class InceptionScore:
    """exp of the mean divergence between an image's classes and the classes of its split.

    Args:
        features: the network that gives class probabilities.
        splits: parts that are scored apart and averaged.
    """

    def __init__(self, features: FeatureExtractor, splits: int = 10) -> None:
        self.features = features
        self.splits = splits

    def observe(self, names: Sequence[str], images: np.ndarray) -> State:
        """Class probabilities, float64 (k,), of each image uint8 (n, h, w, 3)."""
        return dict(zip(names, self.features.probabilities(images), strict=True))

    def value(self, state: State) -> Score:
        """The score of one defect's images.

        Raises:
            ValueError: fewer images than splits.
        """
        if len(state) < self.splits:
            raise ValueError(
                f"{len(state)} images cannot be cut into {self.splits} splits; "
                f"make more pairs or pass --set score.splits={max(len(state), 1)}"
            )
        _, probabilities = table(state)
        scores = inception_scores(probabilities, self.splits)
        conditions = {
            "profile": "torch-fidelity",
            "backbone": self.features.classifier,
            "weights": self.features.digest,
            "splits": self.splits,
            "seed": SHUFFLE_SEED,
            "std": float(np.std(scores)) if self.splits > 1 else None,
        }
        return Score(self.features.metric_name("is"), float(np.mean(scores)), len(state), conditions)


def inception_scores(probabilities: np.ndarray, splits: int) -> np.ndarray:
    """The score of each split, float64 (splits,), of class probabilities (n, k) in the order of the images' names."""
    shuffled = probabilities[np.random.RandomState(SHUFFLE_SEED).permutation(len(probabilities))].astype(np.float64)
    edges = [len(shuffled) * part // splits for part in range(splits + 1)]
    scores = []
    for start, stop in pairwise(edges):
        p = shuffled[start:stop]
        q = p.mean(axis=0, keepdims=True)
        # 0 log 0 is 0; a class nobody has (q = 0) has p = 0 too.
        ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
        scores.append(np.exp((p * np.log(ratio)).sum(axis=1).mean()))
    return np.array(scores)
