"""Pixels ranked by their score, once: what AUROC, AP and F1 are made from (section IV-D).

A test half of a few hundred images has tens of millions of pixels, and sorting them is most of what a test costs. A
score in single precision and its label fit into one whole number, whose sort is some ten times faster than ordering
positions by score; the counts, and so the figures, are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """How many are found and how many falsely at each threshold there is, from the highest down."""

    true: np.ndarray  # int64 (t,), positive ones at or above it
    false: np.ndarray  # int64 (t,), negative ones at or above it

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> Ranking:
        """Rank scores; both arrays are flattened, and a label is positive where it is above zero.

        Raises:
            ValueError: nothing to rank, other shapes, or a score that is not a finite number.
        """
        positive, values = np.asarray(labels).ravel() > 0, np.asarray(scores).ravel()
        if not len(values) or len(values) != len(positive):
            raise ValueError(f"{len(positive)} labels and {len(values)} scores are nothing to rank")
        if not np.isfinite(values).all():
            raise ValueError("scores with NaN or infinity cannot be ranked")
        if values.dtype == np.float32:
            bits = (values + 0.0).view(np.uint32)  # + 0: one zero, not two
            ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
            keys = np.sort(ordered << np.uint64(1) | positive)[::-1]
            hit, level = keys & np.uint64(1), keys >> np.uint64(1)
        else:
            order = np.argsort(-values, kind="stable")
            hit, level = positive[order], values[order]
        last = np.flatnonzero(np.append(level[1:] != level[:-1], True))
        true = np.cumsum(hit, dtype=np.int64)[last]
        return cls(true, last + 1 - true)

    @property
    def positive(self) -> int:
        """Number of positive ones."""
        return int(self.true[-1])

    @property
    def negative(self) -> int:
        """Number of negative ones."""
        return int(self.false[-1])

    @cached_property
    def auroc(self) -> float | None:
        """Area under the ROC curve; None where a class is missing."""
        if not self.positive or not self.negative:
            return None
        true, false = (np.append(0, counts).astype(np.float64) for counts in (self.true, self.false))
        return float(np.trapezoid(true, false) / self.positive / self.negative)

    @cached_property
    def average_precision(self) -> float | None:
        """Sum over thresholds of precision times the recall gained there; None without a positive one."""
        if not self.positive:
            return None
        gained = np.diff(self.true, prepend=0)
        return float((gained * (self.true / (self.true + self.false))).sum() / self.positive)

    @cached_property
    def f1_max(self) -> float | None:
        """The largest F1 over all thresholds; None without a positive one."""
        if not self.positive:
            return None
        return float((2 * self.true / (self.true + self.false + self.positive)).max())
