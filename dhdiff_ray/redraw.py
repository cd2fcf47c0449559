"""Pairs whose mask does not lie where a localiser sees the defect are drawn again (``synthesize.min_iou``).

Not in the paper, which keeps every pair. Decided: a whole unit is drawn again with the next seeds, so that what a batch
holds never changes, and of each request the first try that is good enough is kept, else the best; the try, its seed and
its agreement go into the pair's row. The judge is the localiser trained on the real training half, never one that saw a
test image; a score by the same judge is then no longer independent, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.records import Pair, Request, Sample, pair_seed
from dhdiff_ray.synthesis import make

if TYPE_CHECKING:
    from torch import nn

    from dhdiff_ray.model.pipeline import DHDiffPipeline

Judge = Callable[[np.ndarray, np.ndarray], list[float]]
"""Images (n, h, w, 3) and masks (n, h, w) -> intersection over union of each."""


@dataclass(frozen=True)
class Judged:
    """A pair and how well its image and mask agree, in [0, 1]."""

    pair: Pair
    iou: float


def make_agreeing(
    requests: Sequence[Request], pipeline: DHDiffPipeline, config: Config, samples: Sequence[Sample], judge: Judge
) -> list[Judged]:
    """Make one unit, again and again until every pair agrees or ``synthesize.redraws`` are used up.

    Returns:
        One pair per request, in their order; ``pair.request`` holds the try and its seed.
    """
    kept: dict[int, Judged] = {}
    threshold = config.synthesize.min_iou
    for attempt in range(config.synthesize.redraws + 1):
        pairs = make([drawn_again(r, config.run.seed, attempt) for r in requests], pipeline, config, samples)
        found = judge(np.stack([p.image for p in pairs]), np.stack([p.mask for p in pairs]))
        for at, (pair, iou) in enumerate(zip(pairs, found, strict=True)):
            if at not in kept or (kept[at].iou < threshold and iou > kept[at].iou):
                kept[at] = Judged(pair, iou)
        if all(judged.iou >= threshold for judged in kept.values()):
            break
    return [kept[at] for at in range(len(requests))]


def drawn_again(request: Request, run_seed: int, attempt: int) -> Request:
    """The same request with the seed of its ``attempt``-th try; the first is the request itself."""
    seed = pair_seed(run_seed, request.category, request.defect, request.index, attempt)
    return replace(request, seed=seed, attempt=attempt)


def judge_by(model: nn.Module) -> Judge:
    """A judge that thresholds a localiser's map at one half."""
    from dhdiff_ray.detector.evaluate import alignment

    def judge(images: np.ndarray, masks: np.ndarray) -> list[float]:
        found: list[dict[str, Any]] = [alignment(model, images[i : i + 1], masks[i : i + 1]) for i in range(len(masks))]
        return [float(one["iou"]) for one in found]

    return judge
