"""The published networks, from files on this machine only: torch-fidelity's Inception and LPIPS with VGG-16.

Section IV-C names IS and IC-LPIPS without their networks; these are what its peers' scripts use. Nothing is downloaded:
a missing file is an error that names it. LPIPS with its non-negative weights w is a squared distance between features
g = sqrt(w / (h w)) * f / |f| per layer, so an image passes the network once, not once per pair.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dhdiff_ray.metrics.features import FeatureExtractor

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
VGG_FILE = "vgg16-397923af.pth"
LPIPS_SIDE = 256


class PublishedFeatures(FeatureExtractor):
    """Both networks, on a GPU if there is one.

    Args:
        weights_dir: folder with both files; empty means PyTorch's hub cache.

    Raises:
        ValueError: a file is missing.
    """

    name = "inception"
    classifier = "inception-v3-compat (torch-fidelity)"
    perceiver = "lpips 0.1, vgg16"

    def __init__(self, weights_dir: str = "") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        inception, vgg = find_weights(weights_dir)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # torch-fidelity unpickles whatever lies in the file; refuse first what is not plain tensors.
        torch.load(inception, weights_only=True)
        self._inception = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["logits_unbiased"], feature_extractor_weights_path=str(inception)
        ).to(self.device)
        self._lpips = lpips_network(torch.load(vgg, weights_only=True)).to(self.device)
        digest = hashlib.sha256()
        for file in (inception, vgg):
            digest.update(file.read_bytes())
        for weights in lpips_weights(self._lpips):
            digest.update(weights.cpu().numpy().tobytes())
        self.digest = digest.hexdigest()[:16]

    @torch.inference_mode()
    def _probabilities(self, image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.device)
        with _exact_convolutions():
            (logits,) = self._inception(pixels)
        return torch.softmax(logits.double(), dim=1)[0].cpu().numpy()

    @torch.inference_mode()
    def _perceptual(self, image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image)
        if picture.size != (LPIPS_SIDE, LPIPS_SIDE):
            picture = picture.resize((LPIPS_SIDE, LPIPS_SIDE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with _exact_convolutions():
            return lpips_features(self._lpips, pixels.to(self.device))[0].cpu().numpy()


def _exact_convolutions() -> Any:
    """On a GPU: no TF32, and the same algorithm every time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def find_weights(weights_dir: str = "") -> tuple[Path, Path]:
    """Files of Inception and VGG-16.

    Raises:
        ValueError: one is missing; the message names it, its folder and the ways out.
    """
    folder = Path(weights_dir).expanduser() if weights_dir else Path(torch.hub.get_dir()) / "checkpoints"
    files = (folder / INCEPTION_FILE, folder / VGG_FILE)
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(
            f"IS and IC-LPIPS need {' and '.join(missing)} in {folder}; put the files there, name their folder with "
            "--set score.weights_dir=DIR, or use labelled stand-ins with --set score.features=standin"
        )
    return files


def lpips_network(vgg: dict[str, Tensor] | None) -> Any:
    """LPIPS 0.1 with the package's linear weights over VGG-16 with torchvision's weights, or random ones for None."""
    import lpips

    with warnings.catch_warnings():
        # The package calls torchvision by a name of arguments that torchvision has deprecated.
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
        network = lpips.LPIPS(net="vgg", version="0.1", pnet_rand=True, verbose=False)
    if vgg is not None:
        # The package cuts VGG's ``features`` into slices but keeps the layers' numbers.
        trunk = network.net.state_dict()
        network.net.load_state_dict({name: vgg[f"features.{name.split('.', 1)[1]}"] for name in trunk})
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
