"""The peers' ground truth at test time, for figures that are to be laid beside theirs (section IV-D names no rule).

Their scripts resize a mask bilinearly and then cut it to whole numbers, so only pixels that lie wholly inside count as
defect for AUROC and AP, while PRO takes every pixel that is not zero: one run, two ground truths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dhdiff_ray.records import Sample


def peers_masks(samples: Sequence[Sample], resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Both ground truths, uint8 (n, resolution, resolution): of AUROC and AP, and of PRO; normal images are empty."""
    strict, soft = np.zeros((2, len(samples), resolution, resolution), np.uint8)
    for index, sample in enumerate(samples):
        if sample.mask is None:
            continue
        with Image.open(sample.mask) as picture:
            values = torch.from_numpy(np.array(picture.convert("L"), np.float32))[None, None]
        # Bilinear without antialiasing and with half-pixel centres: what OpenCV's resize does.
        small = functional.interpolate(values, (resolution, resolution), mode="bilinear")[0, 0].round().numpy()
        strict[index], soft[index] = (small == 255) * 255, (small > 0) * 255
    return strict, soft
