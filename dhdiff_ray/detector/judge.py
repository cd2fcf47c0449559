"""A localiser as a judge of made pairs: how well its map and a mask agree (``synthesize.min_iou``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from dhdiff_ray.detector.evaluate import alignment


def judge_by(model: nn.Module) -> Callable[[np.ndarray, np.ndarray], list[float]]:
    """A judge that thresholds a localiser's map at one half: images (n, h, w, 3), masks (n, h, w) -> IoU of each."""

    def judge(images: np.ndarray, masks: np.ndarray) -> list[float]:
        one_by_one = ((images[i : i + 1], masks[i : i + 1]) for i in range(len(masks)))
        return [float(alignment(model, *pair)["iou"] or 0) for pair in one_by_one]

    return judge
