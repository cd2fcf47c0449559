"""Small real classifiers as labelled stand-ins, and how any torch module becomes one.

Not in the paper. Where Inception and VGG cannot be had, MobileNetV2's classes and unweighted distances in SqueezeNet
1.0 at least see what is in a picture: good for comparing runs, named ``_small``, and no match for any published figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dhdiff_ray.metrics.features.base import Classifier, Perceiver
from dhdiff_ray.metrics.features.weights import load

CLASSIFIER_FILE = "mobilenet_v2_imagenet1001_from_tflite_fp16.pth"
PERCEIVER_FILE = "squeezenet1_0_deepcompression_rgb_fp16.pth"
MOBILENET_SIDE = 225
"""A side of 32 k + 1, where torchvision's padding is TensorFlow's."""
SQUEEZENET_SIDE = 128
TAPS = (1, 4, 7, 8, 9, 10, 12)
"""Layers of SqueezeNet's ``features`` whose outputs are compared."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ModuleClassifier(Classifier):
    """Any torch module as a stand-in classifier.

    Args:
        logits: images float32 (n, 3, side, side) in [0, 1] to (logits (n, k), pooled features (n, d)).
        name: told beside every score.
        digest: hash of its weights.
        side: of the square images it gets.
        suffix: of its metrics' names.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], tuple[Tensor, Tensor]],
        name: str,
        digest: str,
        side: int,
        suffix: str = "_module",
    ) -> None:
        self._logits, self.classifier, self.digest = logits, name, digest
        self.side, self.suffix = side, suffix

    @torch.inference_mode()
    def _classify(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, pooled = self._logits(_tensor(image, self.side))
        return torch.softmax(logits.double(), dim=1)[0].numpy(), pooled[0].float().numpy()


class ModulePerceiver(Perceiver):
    """Any torch module as a stand-in for LPIPS: the mean squared distance of unit-length features, layer by layer.

    Args:
        layers: images float32 (n, 3, side, side) in [0, 1] to feature maps (n, c, h, w).
        name: told beside every score.
        digest: hash of its weights.
        side: of the square images it gets.
        suffix: of its metrics' names.
    """

    def __init__(
        self,
        layers: Callable[[Tensor], Sequence[Tensor]],
        name: str,
        digest: str,
        side: int,
        suffix: str = "_module",
    ) -> None:
        self.layers, self.perceiver, self.digest = layers, name, digest
        self.side, self.suffix = side, suffix

    @torch.inference_mode()
    def _perceptual(self, image: np.ndarray, raw: bool, nearest: bool) -> np.ndarray:
        how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
        pixels = _tensor(image, self.side, how)
        parts = []
        for layer in self.layers(pixels * 255 if raw else pixels):
            area = layer.shape[2] * layer.shape[3]
            parts.append((functional.normalize(layer, dim=1) / area**0.5).flatten())
        return torch.cat(parts).numpy()


def small_classifier(weights_dir: str) -> Classifier:
    """MobileNetV2 1.0 with its 1001 classes, from ``weights_dir``."""
    from torchvision.models import mobilenet_v2

    network: Any = mobilenet_v2(num_classes=1001)
    digest = _load(network, find_small(weights_dir)[0])

    def logits(images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = network.features(images * 2 - 1).mean(dim=(2, 3))
        return network.classifier(pooled), pooled

    return ModuleClassifier(logits, "MobileNetV2 1.0, 1001 classes", digest, MOBILENET_SIDE, "_small")


def small_perceiver(weights_dir: str) -> Perceiver:
    """SqueezeNet 1.0, unweighted, from ``weights_dir``."""
    from torchvision.models import squeezenet1_0

    network: Any = squeezenet1_0()
    digest = _load(network, find_small(weights_dir)[1])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)

    def layers(images: Tensor) -> list[Tensor]:
        features, layers = (images - mean) / std, []
        for index, layer in enumerate(network.features):
            features = layer(features)
            if index in TAPS:
                layers.append(features)
        return layers

    return ModulePerceiver(layers, "SqueezeNet 1.0, unweighted", digest, SQUEEZENET_SIDE, "_small")


def find_small(weights_dir: str) -> tuple[Path, Path]:
    """Files of MobileNetV2 and SqueezeNet 1.0.

    Raises:
        ValueError: one is missing.
    """
    folder = Path(weights_dir or ".").expanduser()
    files = (folder / CLASSIFIER_FILE, folder / PERCEIVER_FILE)
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(
            f"score.features=small needs {' and '.join(missing)} in {folder}; name their folder with "
            "--set score.weights_dir=DIR, or use random stand-ins with --set score.features=standin"
        )
    return files


def _load(network: Any, path: Path) -> str:
    tensors, digest = load(path)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError:
        raise ValueError(f"{path} holds the weights of another architecture than its name says") from None
    network.requires_grad_(False).eval()
    return digest


def _tensor(image: np.ndarray, side: int, how: Image.Resampling = Image.Resampling.BILINEAR) -> Tensor:
    picture = Image.fromarray(image)
    if picture.size != (side, side):
        picture = picture.resize((side, side), how)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
