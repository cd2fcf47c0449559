"""The published networks: torch-fidelity's Inception, and LPIPS with VGG-16, AlexNet or SqueezeNet 1.1.

Section IV-C names IS and IC-LPIPS without their networks; these are what its peers' scripts use. LPIPS with its
non-negative weights w is a squared distance between features g = sqrt(w / (h w)) * f / |f| per layer, so an image
passes the network once, not once per pair.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.features.base import Classifier, Perceiver
from dhdiff_ray.metrics.features.weights import FILES, find, load, own_file, square_pixels

LPIPS_SIDE = 256
"""Side in pixels that the peers resize to before LPIPS."""
OWN = "_own"
"""Marks scores made with weights that the user named."""


class Inception(Classifier):
    """torch-fidelity's ``inception-v3-compat``: 1008 classes, its TensorFlow-like resize to 299 pixels.

    Args:
        config: names the file's folder, or the file.

    Raises:
        ValueError: the file is missing or another network's.
    """

    classifier = "inception-v3-compat (torch-fidelity)"

    def __init__(self, config: ScoreConfig) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = find(config, ["inception"])["inception"]
        _, own_weights = own_file(config, "inception")
        # torch-fidelity unpickles whatever lies in the file; this refuses first what is not plain tensors.
        _, self.digest = load(path, "" if own_weights else FILES["inception"].hash)
        self.device = _device()
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        except RuntimeError:
            raise ValueError(
                f"{path} holds the weights of another network than torch-fidelity's Inception; "
                f"expected the tensors of {FILES['inception'].file}"
            ) from None
        self._network = network.to(self.device)
        if own_weights:
            self.suffix = OWN
            self.classifier = f"{self.classifier}, weights of {Path(own_weights).name}"

    @torch.inference_mode()
    def _classify(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.device)
        with _exact_convolutions():
            pooled, logits = self._network(pixels)
        return torch.softmax(logits.double(), dim=1)[0].cpu().numpy(), pooled[0].float().cpu().numpy()


class Lpips(Perceiver):
    """LPIPS 0.1 of the ``lpips`` package as features.

    Args:
        config: names the file's folder, or the file.
        backbone: ``vgg``, ``alex`` or ``squeeze``.

    Raises:
        ValueError: the file is missing or another network's.
    """

    def __init__(self, config: ScoreConfig, backbone: str) -> None:
        path = find(config, [backbone])[backbone]
        _, own_weights = own_file(config, backbone)
        tensors, digest = load(path, "" if own_weights else FILES[backbone].hash)
        network = lpips_network(backbone, tensors, path.name)
        heads = hashlib.sha256(digest.encode())
        for weights in lpips_weights(network):
            heads.update(weights.numpy().tobytes())
        self._use(network, backbone, heads.hexdigest()[:16], LPIPS_SIDE)
        if own_weights:
            self.suffix = OWN
            self.perceiver = f"{self.perceiver}, weights of {Path(own_weights).name}"

    @classmethod
    def of(cls, network: Any, backbone: str, digest: str, side: int = LPIPS_SIDE) -> Lpips:
        """Features of an LPIPS network at hand; its scores are marked as made with one's own weights."""
        made = cls.__new__(cls)
        made._use(network, backbone, digest, side)
        made.suffix = OWN
        return made

    def _use(self, network: Any, backbone: str, digest: str, side: int) -> None:
        self.device = _device()
        self._network = network.to(self.device)
        self.perceiver = f"lpips 0.1, {backbone}"
        self.digest, self.side = digest, side

    @torch.inference_mode()
    def _perceptual(self, image: np.ndarray, raw: bool, nearest: bool) -> np.ndarray:
        pixels = square_pixels(image, self.side, nearest)
        if not raw:
            pixels = pixels / 127.5 - 1
        with _exact_convolutions():
            return lpips_features(self._network, pixels.to(self.device))[0].cpu().numpy()


def lpips_network(backbone: str, tensors: dict[str, Tensor] | None, file: str = "") -> Any:
    """LPIPS 0.1 with the package's linear weights over a backbone with torchvision's weights, or random ones for None.

    Raises:
        ValueError: the weights belong to another architecture.
    """
    import lpips

    with warnings.catch_warnings():
        # The package calls torchvision by a name of arguments that torchvision has deprecated.
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
        network = lpips.LPIPS(net=backbone, version="0.1", pnet_rand=True, verbose=False)
    if tensors is not None:
        # The package cuts ``features`` into slices but keeps the layers' numbers.
        trunk = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
        try:
            network.net.load_state_dict({name: tensors[theirs].float() for name, theirs in trunk.items()})
        except (KeyError, RuntimeError):
            raise ValueError(
                f"{file or 'the file'} holds the weights of another architecture than {backbone}; expected the tensors "
                f"of {FILES[backbone].file}. Name the network with --set score.backbone=vgg, alex or squeeze"
            ) from None
    if any((weights < 0).any() for weights in lpips_weights(network)):
        raise ValueError("these LPIPS weights are negative in places, so LPIPS is no squared distance; reinstall lpips")
    return network.requires_grad_(False).eval()


def lpips_weights(network: Any) -> list[Tensor]:
    """The linear weights (1, c, 1, 1) of each layer."""
    return [layer.model[-1].weight for layer in network.lins]


def lpips_features(network: Any, images: Tensor) -> Tensor:
    """Features (n, d) of images (n, 3, h, w) in [-1, 1]: LPIPS is the squared distance between two rows."""
    import lpips

    parts = []
    for layer, weights in zip(network.net(network.scaling_layer(images)), lpips_weights(network), strict=True):
        height, width = layer.shape[2:]
        parts.append((lpips.normalize_tensor(layer) * (weights / (height * width)).sqrt()).flatten(1))
    return torch.cat(parts, dim=1)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _exact_convolutions() -> Any:
    """On a GPU: no TF32, and the same algorithm every time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
