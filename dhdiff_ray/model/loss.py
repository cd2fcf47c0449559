"""The objective: Eq. 8, section III-E; beside it, where asked for, the image's error at coarser scales (ours)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dhdiff_ray.model.domains import split

SCALES = (4, 16)
"""Sides, in latent positions, of the squares that :func:`multiscale_loss` averages over."""


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


def multiscale_loss(
    predicted: Tensor, target: Tensor, region: Tensor | None = None, share: Tensor | None = None
) -> Tensor:
    """The image's error averaged over squares of 4 x 4 and of 16 x 16 positions, squared, and weighted by their sides.

    Not in the paper. In Eq. 8 fine detail, most of which cannot be known, drowns how bright a large region should be
    beside its surroundings. The idea and the weighting by scale are Hoogeboom et al. 2023 (simple diffusion,
    arXiv:2301.11093, multiscale training loss).

    Args:
        predicted: (2b, c, h, w), joined.
        target: (2b, c, h, w), joined.
        region: (2b, 1, h, w) of 0 and 1, as in :func:`dh_loss`; a square counts by how much of it lies in the region.
        share: as in :func:`dh_loss`.

    Returns:
        A number, halved as the image's part of Eq. 8 is.
    """
    error = split(predicted.float() - target.float())[0]  # (b, c, h, w)
    weight = torch.ones_like(error[:, :1]) if region is None else split(region)[0].float()  # (b, 1, h, w)
    judged = weight.sum() * error.shape[1] if share is None else share
    total = error.new_zeros(())
    for side in SCALES:
        margin = (0, -error.shape[-1] % side, 0, -error.shape[-2] % side)
        covered = functional.avg_pool2d(functional.pad(weight, margin), side)  # (b, 1, h', w'), share of each square
        summed = functional.avg_pool2d(functional.pad(error * weight, margin), side)  # (b, c, h', w')
        squares = summed.square() / covered.clamp(min=1 / side**2)
        total = total + side * squares.sum() * side**2 / judged.clamp(min=1)
    return total / 2
