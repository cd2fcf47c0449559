"""Filters from the noised latents straight to the prediction (ours, not in the paper).

A learned autoencoder's latents are nearly white: most of what a prediction needs of its input is a small linear filter
of it, and a U-Net that begins at random is slow to learn that through its norms. Karras et al. 2022 (EDM,
arXiv:2206.00364) add a multiple of the input that is best for data without correlations; here it is a filter for each
domain, which starts as the best one for the training images' correlations (Wiener) and is learned with the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.model.domains import join, split, zero_init

ANCHORS = 8
"""Timesteps, evenly spaced, that have filters of their own; between them filters are mixed."""


class FilterSkip(nn.Module):
    """What is added to the prediction: each domain's own latents, filtered. Zero until :meth:`fit`."""

    def __init__(self, channels: int, side: int, timesteps: int = 1000) -> None:
        super().__init__()
        self.side = side
        self.spacing = (timesteps - 1) / (ANCHORS - 1)
        self.image = nn.Conv2d(channels, channels * ANCHORS, side, padding=side // 2, bias=False)
        self.annotation = nn.Conv2d(channels, channels * ANCHORS, side, padding=side // 2, bias=False)
        zero_init(self)

    def forward(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Noised latents (2b, c, h, w), joined, and their timesteps (b,) -> (2b, c, h, w)."""
        place = timestep.to(self.image.weight)[:, None] / self.spacing
        near = (1 - (place - torch.arange(ANCHORS).to(place)).abs()).clamp(min=0)  # (b, ANCHORS), adds up to 1
        image, annotation = split(latents)
        return join(_filtered(image, self.image.weight, near), _filtered(annotation, self.annotation.weight, near))

    @torch.no_grad()
    def fit(self, latents: Tensor, alphas_cumprod: Tensor, prediction: str) -> None:
        """Start the image's filters as the linear ones of least squared error for such latents.

        With z's patches of second moments R, noised to x = a z + s e: e is best predicted by s E (a^2 R + s^2)^-1 x,
        the velocity v = a e - s z by a s (E - R_0) (a^2 R + s^2)^-1 x, where E and R_0 are the rows of 1 and R that
        belong to the patch's centre.

        Args:
            latents: (n, c, h, w), clean.
            alphas_cumprod: a^2 of each timestep.
            prediction: ``epsilon`` or ``v``.
        """
        patches = functional.unfold(latents, self.side).transpose(1, 2).flatten(0, 1).double()  # (positions, c k k)
        moments = patches.T @ patches / len(patches)  # R
        one = torch.eye(len(moments)).to(moments)
        area = self.side**2
        centre = torch.arange(latents.shape[1], device=latents.device) * area + area // 2
        found = []
        for anchor in range(ANCHORS):
            signal = float(alphas_cumprod[round(anchor * self.spacing)])  # a^2
            a, s = signal**0.5, (1 - signal) ** 0.5
            inverse = torch.linalg.inv(signal * moments + (1 - signal) * one)
            rows = s * one[centre] if prediction == "epsilon" else a * s * (one[centre] - moments[centre])
            found.append(rows @ inverse)
        self.image.weight.copy_(torch.cat(found).view_as(self.image.weight))


def _filtered(latents: Tensor, kernels: Tensor, near: Tensor) -> Tensor:
    """Each row of (b, c, h, w) under its own mixture of the anchors' kernels (ANCHORS c, c, k, k)."""
    b, c, h, w = latents.shape
    mixed = torch.einsum("ba,aoikl->boikl", near, kernels.unflatten(0, (ANCHORS, c))).expand(b, -1, -1, -1, -1)
    answer = functional.conv2d(
        latents.reshape(1, b * c, h, w), mixed.flatten(0, 1).to(latents), padding="same", groups=b
    )
    return answer.view(b, c, h, w)
