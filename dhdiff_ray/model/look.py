"""How a defect is expected to look, given its mask (ours, not in the paper).

Beside the paper's third stage, which merges the domains after each block, this merges them once more at the end: a
linear filter from an annotation's latents to how much an image's differ from good product there, fitted to the real
defects in closed form (ridge regression). Masks are decided early in the reverse process, and how dark a crack under
them is follows from their latents to a good part; a network is slow to learn that from a few hundredths of its error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.model.domains import join, split

SIDE = 3
"""Of the filter, in latent positions."""
RIDGE = 0.05
"""Share of the mean power of what is regressed on."""


class DefectLook(nn.Module):
    """Answers nothing until :meth:`fit`."""

    empty: Tensor
    weight: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("empty", torch.zeros(channels, size, size))  # the latents of a mask without a defect
        self.register_buffer("weight", torch.zeros(channels, channels, SIDE, SIDE))

    @torch.no_grad()
    def fit(self, change: Tensor, annotations: Tensor, defects: Tensor, empty: Tensor) -> None:
        """Regress on real defects, each of which counts alike, however large it is.

        Args:
            change: latents of images less those of the good product that is expected there, (n, c, h, w).
            annotations: latents of their masks, (n, c, h, w).
            defects: (n, 1, h, w) of 0 and 1, where the defects are; positions beside them are looked at as well.
            empty: the latents of a mask without a defect, (c, h, w).
        """
        self.empty.copy_(empty)
        near = functional.max_pool2d(defects, 3, 1, 1)[:, 0].bool()  # (n, h, w)
        seen = functional.unfold((annotations - empty).double(), SIDE, padding=SIDE // 2)  # (n, 9 c, h w)
        side, channels = seen.shape[1], change.shape[1]
        power, shared = seen.new_zeros((side, side)), seen.new_zeros((side, channels))
        for one, is_near, answer in zip(seen, near.flatten(1), change.double().flatten(2), strict=True):
            if is_near.any():
                given = one[:, is_near] / is_near.sum().sqrt()  # (9 c, positions)
                power += given @ given.T
                shared += given @ (answer[:, is_near] / is_near.sum().sqrt()).T  # (9 c, c)
        ridge = RIDGE * power.diagonal().mean().clamp(min=1e-8) * torch.eye(side).to(power)
        self.weight.copy_(torch.linalg.solve(power + ridge, shared).T.reshape(self.weight.shape))

    def forward(self, velocity: Tensor, noised: Tensor, region: Tensor, alpha: Tensor) -> Tensor:
        """The predicted velocity, of images with the expected look of the defect whose mask is predicted.

        With textured noise and x0 ~ N(look, Sigma) the expected velocity is -sigma look; a blurred mask's look is the
        expectation over the masks it may become, since the filter is linear. No gradient reaches the annotation.

        Args:
            velocity: (2b, c, h, w), joined.
            noised: what it was predicted from, annotations relative to nothing, (2b, c, h, w).
            region: (2b, 1, h, w), 1 where both are noised.
            alpha: the schedule's cumulative product at the timestep, (2b,) or a number.
        """
        image, annotation = split(velocity)
        alpha = split(alpha.expand(len(velocity)).to(velocity))[1][:, None, None, None]
        inside = split(region)[1]
        clean = alpha.sqrt() * split(noised)[1] - (1 - alpha).sqrt() * annotation.detach()  # (b, c, h, w)
        empty = self.empty if self.empty.shape == clean.shape[1:] else self.empty.mean((1, 2), keepdim=True)
        look = functional.conv2d((clean - empty) * inside, self.weight.to(clean), padding=SIDE // 2)
        return join(image - (1 - alpha).sqrt() * look * inside, annotation)
