"""Draw a pair again if its mask is empty, or does not lie where a localiser sees the defect.

Not in the paper, which keeps every pair. Decided: of each request the first try that is good enough is kept, else the
best; the try, its seed and its agreement go into the pair's row. Further tries are made in batches as large as the
unit, so that what a pair looks like never depends on how many there are. The judge (``synthesize.min_iou``) is the
localiser trained on the real training half, never one that saw a test image; a score by the same judge is then no
longer independent, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.make import make
from dhdiff_ray.records import Pair, Request, Sample, pair_seed

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
Judge = Callable[[np.ndarray, np.ndarray], list[float]]
"""Images (n, h, w, 3) and masks (n, h, w) -> intersection over union of each; ``detector/judge.py`` makes one."""


@dataclass(frozen=True)
class Judged:
    """A pair, whether its mask is empty, and how well image and mask agree, in [0, 1], if that was judged."""

    pair: Pair
    empty: bool
    iou: float | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """Larger for the better of two tries."""
        return not self.empty, self.iou or 0.0

    def is_good(self, min_iou: float) -> bool:
        """Whether the pair is kept as it is."""
        return not self.empty and (self.iou is None or self.iou >= min_iou)


def make_usable(
    requests: Sequence[Request],
    pipeline: DHDiffPipeline,
    config: Config,
    samples: Sequence[Sample],
    judge: Judge | None = None,
) -> list[Judged]:
    """Make one unit; draw pairs that are not good enough again, at most ``synthesize.redraws`` times.

    The judge tells the agreement that ``synthesize.min_iou`` asks for; without one a mask need only not be empty.
    One pair per request, in their order; ``pair.request`` holds the try and its seed. See :func:`make`.
    """
    size, threshold = len(requests), config.synthesize.min_iou
    kept: dict[int, Judged] = {}
    queue = [(attempt, at) for attempt in range(config.synthesize.redraws + 1) for at in range(size)]
    while queue:
        tries, queue = queue[:size], queue[size:]
        whole = tries + tries[:1] * (size - len(tries))
        again = [drawn_again(requests[at], config.run.seed, attempt) for attempt, at in whole]
        results = judged(make(again, pipeline, config, samples), judge)
        for (_, at), one in zip(tries, results, strict=False):  # what filled the batch up is not looked at
            if at not in kept or (not kept[at].is_good(threshold) and one.rank > kept[at].rank):
                kept[at] = one
        queue = [(attempt, at) for attempt, at in queue if not kept[at].is_good(threshold)]
    return [kept[at] for at in range(size)]


def judged(pairs: Sequence[Pair], judge: Judge | None) -> list[Judged]:
    """Judge each pair."""
    ious: list[Any] = [None] * len(pairs)
    if judge:
        ious = judge(np.stack([pair.image for pair in pairs]), np.stack([pair.mask for pair in pairs]))
    return [Judged(pair, not pair.mask.any(), iou) for pair, iou in zip(pairs, ious, strict=True)]


def drawn_again(request: Request, run_seed: int, attempt: int) -> Request:
    """The same request with the seed of its ``attempt``-th try; the first is the request itself."""
    seed = pair_seed(run_seed, request.category, request.defect, request.index, attempt)
    return replace(request, seed=seed, attempt=attempt)
