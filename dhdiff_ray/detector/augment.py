"""The usual augmentation of a detector's training images: mirrored, turned, scaled, brighter or darker.

Not in the paper, whose peers train without. Decided: every image of a batch is changed, real, made, pasted or normal,
so that a change is no sign of a defect; an image is mirrored only where a mirrored product is a product
(``train.flips``); beyond its edge it goes on as in a mirror.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

TURN = 10.0
"""Largest angle in degrees."""
SCALE = 1.1
"""Largest factor, and its inverse the smallest."""
LIGHT = 0.15
"""Most that contrast changes by, as a share, and brightness, as a share of the range of values."""


def augmented(images: Tensor, masks: Tensor, mirror: bool, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch, each image and its mask changed at random.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        masks: (n, 1, h, w) of 0 and 1.
        mirror: whether images may be mirrored, left to right and top to bottom.
        draw: draws every change.

    Returns:
        Images and masks of the same shapes and values.
    """
    count, height, width = len(images), *images.shape[2:]
    angle = np.deg2rad(TURN) * draw.uniform(-1, 1, count)
    factor = SCALE ** draw.uniform(-1, 1, count)
    signs = draw.choice([-1, 1], (count, 2)) if mirror else np.ones((count, 2))
    contrast, brightness = 1 + LIGHT * draw.uniform(-1, 1, count), 2 * LIGHT * draw.uniform(-1, 1, count)
    cos, sin, ratio, none = np.cos(angle) * factor, np.sin(angle) * factor, height / width, np.zeros(count)
    rows = np.stack(
        [
            np.stack([signs[:, 0] * cos, -signs[:, 0] * sin * ratio, none], 1),
            np.stack([signs[:, 1] * sin / ratio, signs[:, 1] * cos, none], 1),
        ],
        1,
    )
    grid = functional.affine_grid(_tensor(rows, images), list(images.shape), align_corners=False)
    moved = functional.grid_sample(torch.cat([images, masks], 1), grid, padding_mode="reflection", align_corners=False)
    colours = moved[:, :3]
    mean = colours.mean((1, 2, 3), keepdim=True)
    lit = (colours - mean) * _tensor(contrast, images)[:, None, None, None] + mean
    lit = lit + _tensor(brightness, images)[:, None, None, None]
    return lit.clamp(-1, 1), (moved[:, 3:] > 0.5).to(masks.dtype)


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)
