"""The objective: Eq. 8, section III-E."""

from __future__ import annotations

import torch
from torch import Tensor

from dhdiff_ray.model.domains import split


def dh_loss(
    predicted: Tensor, target: Tensor, region: Tensor | None = None, share: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 8: mean squared error over both domains, z = (z^I, z^A).

    The target is the noise, or the velocity where the scheduler's ``prediction_type`` says so.

    Args:
        predicted: (2b, c, h, w), joined.
        target: (2b, c, h, w), joined.
        region: (2b, 1, h, w) of 0 and 1, the positions that were noised; None means all.
        share: what a domain's sum of squares is divided by; None means the number of its values in the region. On
            several workers it is that of the whole batch per worker, so that the mean over them is the whole batch's.

    Returns:
        The loss, and its image and annotation parts for the log.
    """
    error = (predicted.float() - target.float()).square()  # (2b, c, h, w)
    weight = torch.ones_like(error) if region is None else region.expand_as(error)
    image, annotation = (
        (w * e).sum() / (w.sum() if share is None else share).clamp(min=1)
        for e, w in zip(split(error), split(weight), strict=True)
    )
    return (image + annotation) / 2, image.detach(), annotation.detach()
