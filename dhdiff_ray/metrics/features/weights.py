"""Files of the published networks: names, places, contents; and pixels as the networks expect them.

Not in the paper. What we decided: nothing is fetched unless ``score.download`` says so; a file under a published name
must have the published hash; one's own file must be named, and its scores carry another name.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
from PIL import Image

from dhdiff_ray.config import ScoreConfig

if TYPE_CHECKING:  # drivers ask which files there are, and must not import torch
    from torch import Tensor

CLASSIFIER_FILE = "mobilenet_v2_imagenet1001_from_tflite_fp16.pth"
PERCEIVER_FILE = "squeezenet1_0_deepcompression_rgb_fp16.pth"
"""The small networks."""


@dataclass(frozen=True)
class Published:
    """One file; its name ends in the first 8 digits of its SHA-256, as its publisher wrote it."""

    file: str
    source: str
    what: str

    @property
    def hash(self) -> str:
        """The digits."""
        return Path(self.file).stem.rsplit("-", 1)[1]


_TORCHVISION = "https://download.pytorch.org/models/"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
FILES = {
    "inception": Published(
        "weights-inception-2015-12-05-6726825d.pth", _FIDELITY, "torch-fidelity's Inception, for IS and KID"
    ),
    "vgg": Published("vgg16-397923af.pth", _TORCHVISION, "torchvision's VGG-16, for IC-LPIPS"),
    "alex": Published("alexnet-owt-7be5be79.pth", _TORCHVISION, "torchvision's AlexNet, for IC-LPIPS"),
    "squeeze": Published("squeezenet1_1-b8a52dc0.pth", _TORCHVISION, "torchvision's SqueezeNet 1.1, for IC-LPIPS"),
}


def folder_of(config: ScoreConfig) -> Path:
    """Where published files are looked for: the configured folder, else PyTorch's hub cache."""
    if config.weights_dir:
        return Path(config.weights_dir).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def find(config: ScoreConfig, networks: Iterable[str]) -> dict[str, Path]:
    """Files by network: one's own where it is named, else the published one, fetched if that is allowed.

    Raises:
        ValueError: files are missing; each is named with its source and the flags that help.
    """
    paths: dict[str, Path] = {}
    missing: list[Published] = []
    for network in networks:
        key, own_path = own_file(config, network)
        path = Path(own_path).expanduser() if own_path else folder_of(config) / FILES[network].file
        if own_path and not path.is_file():
            raise ValueError(f"{path} is not there; name the weights of {network} with --set score.{key}=FILE")
        if not path.is_file() and config.download:
            _fetch(FILES[network], path)
        if not path.is_file():
            missing.append(FILES[network])
        paths[network] = path
    if missing:
        names = " and ".join(f"{file.file} ({file.what}, from {file.source}{file.file})" for file in missing)
        raise ValueError(
            f"missing in {folder_of(config)}: {names}. Put them there, name their folder with "
            "--set score.weights_dir=DIR, let them be fetched with --set score.download=true, or use labelled "
            "stand-ins with --set score.features=standin"
        )
    return paths


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


def own_file(config: ScoreConfig, network: str) -> tuple[str, str]:
    """The knob that names a user's own file for a network, and its value."""
    key = "inception_file" if network == "inception" else "backbone_file"
    return key, getattr(config, key)


def load(path: Path, expected_hash: str = "") -> tuple[dict[str, Tensor], str]:
    """Tensors of a file, and 16 digits of its SHA-256.

    Args:
        path: a file that ``torch.save`` wrote.
        expected_hash: first digits that the hash must have; empty takes any.

    Raises:
        ValueError: the hash differs, or the file holds more than tensors; no code in it is run.
    """
    import torch

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(expected_hash):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:8]}, expected {expected_hash}; fetch "
            "it again, or use it under its own name with --set score.backbone_file=FILE (score.inception_file for "
            "Inception)"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as weights: it is damaged or holds more than tensors, which is refused because "
            f"it could run code ({type(error).__name__}); save it as a state_dict of tensors"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds no state_dict of tensors; save one with torch.save(model.state_dict(), FILE)")
    return tensors, digest[:16]


def square_pixels(image: np.ndarray, side: int, nearest: bool = False) -> Tensor:
    """An image uint8 (h, w, 3) as float32 (1, 3, side, side) from 0 to 255, as a network takes it."""
    import torch

    picture = Image.fromarray(image)
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


def _fetch(file: Published, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with urlopen(file.source + file.file, timeout=60) as answer, part.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
        with part.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not digest.startswith(file.hash):
            raise OSError(f"what came has the SHA-256 {digest[:8]}, not {file.hash}")
        part.rename(path)
    except OSError as error:
        raise ValueError(
            f"could not fetch {file.source}{file.file} ({error}); put {file.file} into {path.parent} by hand"
        ) from None
    finally:
        part.unlink(missing_ok=True)
