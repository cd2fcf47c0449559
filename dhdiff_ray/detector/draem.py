"""The peers' localiser: the discriminative network of DRAEM, the U-Net that section IV-D compares generators with.

Zavrtanik et al., ICCV 2021. At 64 channels it has 28,372,418 weights: six levels of two convolutions on the way down
(one to eight times the channels, eight at the last three), five levels up. Its two logits per pixel are given as their
difference: a softmax over two is a sigmoid of that.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.detector.unet import convolutions

DOWN = (1, 2, 4, 8, 8, 8)
"""Channels of the levels from the image down, in multiples of the first level's."""
UP = ((8, 8, 8), (4, 8, 4), (2, 4, 2), (1, 2, 1), (1, 1, 1))
"""Per level up: channels after upsampling, of the skip, and of the result."""
LEVELS = len(DOWN) - 1


class Draem(nn.Module):
    """DRAEM's discriminative network.

    Args:
        channels: channels of the first level.
    """

    levels = LEVELS

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        widths = [3, *(channels * factor for factor in DOWN)]
        self.down = nn.ModuleList(convolutions(a, b, 2, bias=True) for a, b in pairwise(widths))
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for grown, skip, result in UP:
            self.grow.append(convolutions(below, channels * grown, 1, bias=True))
            self.up.append(convolutions(channels * (grown + skip), channels * result, 2, bias=True))
            below = channels * result
        self.head = nn.Conv2d(channels, 2, 3, padding=1)
        self.apply(_start)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 1, h, w) of images (n, 3, h, w) scaled to [-1, 1]; h and w divide by 32."""
        skips, features = [], images
        for level, block in enumerate(self.down):
            features = block(functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            larger = functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=True)
            features = block(torch.cat([grow(larger), skips.pop()], dim=1))
        normal, defect = self.head(features).split(1, dim=1)
        return defect - normal


def _start(layer: nn.Module) -> None:
    """The peers' first weights: convolutions from N(0, 0.02), batch norms from N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 0.0 if isinstance(layer, nn.Conv2d) else 1.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
