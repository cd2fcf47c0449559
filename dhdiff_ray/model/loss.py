"""The objective: Eq. 8, section III-E; and, optionally, the error on the defect itself (ours)."""

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


def defect_loss(predicted: Tensor, target: Tensor, defect: Tensor, count: float) -> Tensor:
    """Mean squared error of both domains on a pair's own defect, averaged over pairs, halved as in the loss beside it.

    Not in the paper. In Eq. 8 a defect counts by its area, a few hundredths of the region that is noised. How it looks
    is then learned so slowly that masks are long in place when images still show good product under them; and where a
    small one lies is not known under noise, so that an empty mask is the answer that costs least.

    Args:
        predicted: (2b, c, h, w), joined.
        target: (2b, c, h, w), joined.
        defect: (b, 1, h, w) of 0 and 1; pairs without one count as no error.
        count: pairs that the sum is divided by; on several workers those of the whole batch per worker.
    """
    image, annotation = split((predicted.float() - target.float()).square())
    error = (image + annotation).mean(1, keepdim=True)  # (b, 1, h, w)
    each = (error * defect).sum((1, 2, 3)) / defect.sum((1, 2, 3)).clamp(min=1)  # (b,)
    return each.sum() / count / 2
