"""Small real networks as labelled stand-ins.

Not in the paper. Where Inception and VGG cannot be had, MobileNetV2's classes and unweighted distances in SqueezeNet
1.0 at least see what is in a picture: good for comparing runs, named ``_small``, and no match for any published figure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dhdiff_ray.metrics.features.base import Classifier, Perceiver
from dhdiff_ray.metrics.features.weights import find_small, load, square_pixels

MOBILENET_SIDE = 225
"""A side of 32 k + 1, where torchvision's padding is TensorFlow's."""
SQUEEZENET_SIDE = 128
TAPS = (1, 4, 7, 8, 9, 10, 12)
"""Layers of SqueezeNet's ``features`` whose outputs are compared."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class SmallClassifier(Classifier):
    """MobileNetV2 1.0 with its 1001 classes, from ``weights_dir``."""

    classifier, suffix = "MobileNetV2 1.0, 1001 classes", "_small"

    def __init__(self, weights_dir: str) -> None:
        from torchvision.models import mobilenet_v2

        self._network: Any = mobilenet_v2(num_classes=1001)
        self.digest = _load(self._network, find_small(weights_dir)[0])

    @torch.inference_mode()
    def _classify(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = square_pixels(image, MOBILENET_SIDE) / 255
        pooled = self._network.features(pixels * 2 - 1).mean(dim=(2, 3))
        return torch.softmax(self._network.classifier(pooled).double(), dim=1)[0].numpy(), pooled[0].float().numpy()


class SmallPerceiver(Perceiver):
    """SqueezeNet 1.0, unweighted, from ``weights_dir``: the mean squared distance of unit-length features by layer."""

    perceiver, suffix = "SqueezeNet 1.0, unweighted", "_small"

    def __init__(self, weights_dir: str) -> None:
        from torchvision.models import squeezenet1_0

        self._network: Any = squeezenet1_0()
        self.digest = _load(self._network, find_small(weights_dir)[1])
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)

    @torch.inference_mode()
    def _perceptual(self, image: np.ndarray, raw: bool, nearest: bool) -> np.ndarray:
        pixels = square_pixels(image, SQUEEZENET_SIDE, nearest) / 255
        parts = []
        for features in self.layers(pixels * 255 if raw else pixels):
            area = features.shape[2] * features.shape[3]
            parts.append((functional.normalize(features, dim=1) / area**0.5).flatten())
        return torch.cat(parts).numpy()

    def layers(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Features (n, c, h', w') of the layers that are compared, of pixels (n, 3, h, w) in [0, 1]."""
        features, taps = (pixels - self._mean) / self._std, []
        for index, layer in enumerate(self._network.features):
            features = layer(features)
            if index in TAPS:
                taps.append(features)
        return taps


def _load(network: Any, path: Path) -> str:
    tensors, digest = load(path)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError:
        raise ValueError(f"{path} holds the weights of another architecture than its name says") from None
    network.requires_grad_(False).eval()
    return digest
