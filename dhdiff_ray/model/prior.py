"""Where the image's noise is centred: on the mean of what is known around a raw mask (ours, not in the paper).

PriorGrad (Lee et al. 2022, arXiv:2106.06406) diffuses towards noise around a mean that follows from the condition
instead of towards noise around zero. Here the condition is the product around the raw mask, and the mean is its
Gaussian-weighted one, a normalised convolution (Knutsson and Westin 1993): smooth, and defined inside the raw mask too.
Image latents are then drawn relative to it, so that a network that only knows what defects look like beside their
surroundings has the right brightness.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhdiff_ray.model.domains import join, split

FAR = 1e-6
"""Least weight along an axis, beside 1 at the centre: deep inside a large raw mask the mean is the whole image's."""


def surroundings_mean(latents: Tensor, region: Tensor, radius: float) -> Tensor:
    """What image latents are relative to; zero for annotations, and where nothing around is known.

    Args:
        latents: (2b, c, h, w), joined, clean outside the region.
        region: (2b, 1, h, w), 1 where pairs are drawn and nothing is known yet, 0 where the product stays.
        radius: standard deviation of the weights, in latent positions.

    Returns:
        (2b, c, h, w), to be subtracted before noise is added and added again before decoding.
    """
    image, known = split(latents)[0].float(), 1 - split(region)[0].float()
    down, across = (_weights(side, radius, image.device) for side in image.shape[-2:])  # (h, h), (w, w)
    mean = (down @ (image * known) @ across) / (down @ known @ across).clamp(min=torch.finfo(torch.float32).tiny)
    mean = mean.to(latents)  # (b, c, h, w)
    return join(mean, torch.zeros_like(mean))


def _weights(side: int, radius: float, device: torch.device) -> Tensor:
    """(side, side), the weight of each position for each."""
    place = torch.arange(side, dtype=torch.float32, device=device)
    return torch.exp(-((place[:, None] - place[None]) ** 2) / (2 * radius**2)).clamp(min=FAR)
