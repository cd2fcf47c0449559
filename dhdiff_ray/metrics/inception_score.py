"""Inception Score in torch-fidelity's definition, computable in parts (section IV-C).

One score per defect; categories and runs are means of those. Shuffling is torch-fidelity's (``RandomState(2020)`` over
the images in the order of their names), so with its network the value is the number its command line prints. A split
is known by its sums of p and of p log p, so shards are added up and memory does not grow with the images. The value
depends on how many images there are: never compare two scores of different n. Nothing is selected on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import xlogy

from dhdiff_ray.metrics.base import State
from dhdiff_ray.metrics.features.base import Classifier
from dhdiff_ray.records import Score

SHUFFLE_SEED = 2020
"""torch-fidelity's seed."""


class InceptionScore:
    """exp of the mean divergence between an image's classes and the classes of its split.

    Args:
        classifier: whose probabilities are observed; only its name is used here.
        names: all images of the defect, in any order: an image's split follows from them.
        splits: parts that are scored apart and averaged.

    Raises:
        ValueError: fewer images than splits, or a name given twice.
    """

    def __init__(self, classifier: Classifier, names: Sequence[str], splits: int = 10) -> None:
        count = len(names)
        if count < splits:
            raise ValueError(
                f"{count} images cannot be cut into {splits} splits; "
                f"make more pairs or pass --set score.splits={max(count, 1)}"
            )
        if len(set(names)) < count:
            raise ValueError("two images have one name; score one folder of images at a time")
        self.classifier, self.splits, self.count = classifier, splits, count
        ordered = sorted(names)
        # torch-fidelity cuts the shuffled rows at i * n // splits.
        edges = np.array([count * part // splits for part in range(splits + 1)])
        place = np.random.RandomState(SHUFFLE_SEED).permutation(count)
        self._split = {ordered[row]: int(np.searchsorted(edges, at, side="right")) - 1 for at, row in enumerate(place)}
        self._sizes = np.diff(edges)

    def holds(self, name: str) -> bool:
        """Whether the score counts an image of that name."""
        return name in self._split

    def observe(self, names: Sequence[str], probabilities: np.ndarray) -> State:
        """Sums over some of the images of their class probabilities (n, k), by split; ``base.add`` adds states."""
        state = {
            "count": np.zeros(self.splits),
            "p": np.zeros((self.splits, probabilities.shape[1])),
            "p_log_p": np.zeros(self.splits),
        }
        for name, p in zip(names, probabilities.astype(np.float64), strict=True):
            if not np.isfinite(p).all():
                raise ValueError(f"the network's output for {name} is not finite; the image or the weights are damaged")
            split = self._split[name]
            state["count"][split] += 1
            state["p"][split] += p
            state["p_log_p"][split] += xlogy(p, p).sum()
        return state

    def value(self, state: State) -> Score:
        """The score of one defect's images.

        Raises:
            ValueError: not every image was observed once.
        """
        if not state or not np.array_equal(state["count"], self._sizes):
            seen = int(state["count"].sum()) if state else 0
            raise ValueError(f"{seen} images were observed, not each of {self.count} once; score again")
        # The mean over images of KL(p || q), with q the mean of p, is (sum p log p - n * sum q log q) / n.
        count, q = state["count"], state["p"] / state["count"][:, None]
        scores = np.exp(state["p_log_p"] / count - xlogy(q, q).sum(axis=1))
        conditions = {
            "profile": "torch-fidelity",
            "backbone": self.classifier.classifier,
            "weights": self.classifier.digest,
            "splits": self.splits,
            "seed": SHUFFLE_SEED,
            "std": float(np.std(scores)) if self.splits > 1 else None,
        }
        return Score(self.classifier.metric_name("is"), float(np.mean(scores)), self.count, conditions)
