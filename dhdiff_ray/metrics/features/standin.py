"""Stand-in networks with fixed random weights, for runs and tests without published weights.

Not in the paper. Their scores are named ``is_standin`` and ``ic_lpips_standin`` and compare runs at best, never papers.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dhdiff_ray.metrics.features.base import Classifier, Perceiver
from dhdiff_ray.metrics.features.weights import square_pixels

SIDE = 64
WIDTHS = (3, 16, 32, 32)
CLASSES = 32
SEED = 20


class StandinFeatures(Classifier, Perceiver):
    """Three convolutions, each halving the image after the first; the same weights everywhere and always."""

    classifier = "stand-in: random convolutions"
    perceiver = "stand-in: random convolutions"
    suffix = "_standin"

    def __init__(self) -> None:
        # numpy's legacy generator is frozen for good; torch's may change with its version.
        draw = np.random.RandomState(SEED)
        shapes = [(b, a, 3, 3) for a, b in pairwise(WIDTHS)] + [(CLASSES, 2 * WIDTHS[-1])]
        arrays = [(draw.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for s in shapes]
        self.digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]
        *self._filters, self._head = [torch.from_numpy(array) for array in arrays]

    def _layers(self, image: np.ndarray, raw: bool = False, nearest: bool = False) -> list[Tensor]:
        features = square_pixels(image, SIDE, nearest)
        if not raw:
            features = features / 127.5 - 1
        layers = []
        for index, filters in enumerate(self._filters):
            features = functional.relu(functional.conv2d(features, filters, stride=1 if index == 0 else 2, padding=1))
            layers.append(features)  # (1, 16, 64, 64), (1, 32, 32, 32), (1, 32, 16, 16)
        return layers

    def _classify(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        last = self._layers(image)[-1].flatten(2).double()  # (1, 32, 256)
        pooled = torch.cat([last.mean(2), last.std(2)], dim=1)
        # Sharpened, or random logits would call every image the same mixture.
        return torch.softmax(40 * pooled @ self._head.double().T, dim=1)[0].numpy(), pooled[0].float().numpy()

    def _perceptual(self, image: np.ndarray, raw: bool, nearest: bool) -> np.ndarray:
        parts = []
        for layer in self._layers(image, raw, nearest):
            channels, height, width = layer.shape[1:]
            parts.append((functional.normalize(layer, dim=1) / (channels * height * width) ** 0.5).flatten())
        return torch.cat(parts).numpy()
