"""The localiser's network: image in, one logit per pixel out (section IV-D).

The paper says "a U-Net"; its peers take DRAEM's discriminative half, which is in ``draem.py``. This one keeps its
shape with three levels below the top and one convolution per level on the way up, behind a 1 x 1 that halves the
channels before upsampling: about 0.6 of the time of two convolutions on the way up, and pixel AP .98 on drawn defects
after 200 steps. One logit stands for DRAEM's two: a softmax over two logits is a sigmoid of their difference.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

KIND = "network"
"""Name in a file's header of what network it is of; the others' files say nothing."""
LEVELS = 3
"""Levels below the top: the sides of an image must divide by 2**3."""


class Localiser(nn.Module):
    """A small U-Net.

    Args:
        channels: channels of the first level; they double with each level below.
    """

    levels = LEVELS

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        widths = [channels * 2**level for level in range(LEVELS + 1)]
        self.stem = convolutions(3, channels, 2)
        self.down = nn.ModuleList(convolutions(a, b, 2) for a, b in pairwise(widths))
        self.halve = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in reversed(list(pairwise(widths))))
        self.up = nn.ModuleList(convolutions(2 * a, a, 1) for a in widths[-2::-1])
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 1, h, w) of images (n, 3, h, w) scaled to [-1, 1]; h and w divide by 8."""
        features = self.stem(images)  # (n, c, h, w)
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(functional.max_pool2d(features, 2))  # (n, 2c, h/2, w/2), ... (n, 8c, h/8, w/8)
        for halve, block in zip(self.halve, self.up, strict=True):
            features = functional.interpolate(halve(features), scale_factor=2.0)
            features = block(torch.cat([features, skips.pop()], dim=1))
        return self.head(features)


def build(network: Literal["small", "draem", "pretrained"], channels: int) -> nn.Module:
    """An untrained localiser.

    Raises:
        ValueError: the weights of a pretrained one are not installed.
    """
    if network == "draem":
        from dhdiff_ray.detector.draem import Draem

        return Draem(channels)
    if network == "pretrained":
        from dhdiff_ray.detector.pretrained import Pretrained

        return Pretrained(channels)
    return Localiser(channels)


def to_bytes(model: nn.Module) -> bytes:
    """The weights as one safetensors file that ``from_bytes`` opens; of a pretrained network its head's alone."""
    from dhdiff_ray.detector.pretrained import Pretrained

    kept, head = (model.head, {KIND: "pretrained"}) if isinstance(model, Pretrained) else (model, None)
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in kept.state_dict().items()}, head)


def from_bytes(data: bytes) -> nn.Module:
    """The localiser that ``to_bytes`` wrote, in evaluation mode, on the CPU.

    Raises:
        ValueError: the bytes hold something else, or the weights of a pretrained network are not installed.
    """
    try:
        tensors = load(data)
    except SafetensorError:
        tensors = {}
    if tensors and _kind(data) == "pretrained":
        from dhdiff_ray.detector.pretrained import Pretrained

        model = Pretrained(tensors["near.0.0.weight"].shape[0])
        model.head.load_state_dict(tensors)
        return model.eval()
    if "head.weight" not in tensors:
        raise ValueError("these weights are not a localiser's; pass a file that detector.unet.to_bytes wrote")
    outputs, channels = tensors["head.weight"].shape[:2]
    model = build("draem" if outputs == 2 else "small", channels)
    model.load_state_dict(tensors)
    return model.eval()


def _kind(data: bytes) -> str:
    """What the header of a safetensors file says of its kind: a length of eight bytes, and JSON."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(KIND, "")


def convolutions(inputs: int, outputs: int, count: int, bias: bool = False) -> nn.Sequential:
    """So many 3 x 3 convolutions, each with its batch norm and ReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, *[outputs] * (count - 1)):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
