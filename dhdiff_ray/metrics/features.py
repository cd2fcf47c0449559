"""The networks behind the scores: class probabilities, pooled features, perceptual features (section IV-C).

``open_classifier`` and ``open_perceiver`` give the published networks from files on this machine (``published.py``),
small real ones (``small.py``) or random ones (``standin.py``) that need no file. The last two are stand-ins: their
figures compare runs of this tool, never papers, so their metrics carry another name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.profiles import profile_of


class Network(ABC):
    """A network and what identifies it.

    Images go through one at a time: a convolution's last bits may depend on the size of its batch, and a score must
    not depend on how the images were sharded.
    """

    suffix: str = ""
    """Appended to the name of every metric."""
    digest: str
    """Hash of all weights, 16 hexadecimal digits."""

    def metric_name(self, metric: str) -> str:
        """``is``, ``ic_lpips`` and so on, as it may be printed."""
        return metric + self.suffix


class Classifier(Network):
    """What the Inception Score and KID ask."""

    classifier: str
    """The network's name, with its architecture."""

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities, float64 (n, k), and pooled features, float32 (n, d), of images uint8 (n, h, w, 3)."""
        seen = [self._look(image) for image in images]
        return np.stack([p for p, _ in seen]), np.stack([pooled for _, pooled in seen])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities alone."""
        return self.look(images)[0]

    @abstractmethod
    def _look(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Perceiver(Network):
    """What IC-LPIPS and originality ask."""

    perceiver: str
    """The network's name, with its architecture."""

    def perceptual(self, images: np.ndarray, *, raw: bool = False, nearest: bool = False) -> np.ndarray:
        """Features, float32 (n, d): LPIPS is the squared distance between two rows.

        Args:
            images: uint8 (n, h, w, 3).
            raw: leave the pixels at 0..255 where the network expects -1..1, as some peers do by mistake.
            nearest: resize by nearest neighbour.
        """
        return np.stack([self._perceptual(image, raw, nearest) for image in images])

    @abstractmethod
    def _perceptual(self, image: np.ndarray, raw: bool, nearest: bool) -> np.ndarray: ...


def open_classifier(config: ScoreConfig) -> Classifier:
    """The classifier that a configuration names.

    Raises:
        ValueError: its file is missing, is another network's, or holds more than tensors.
    """
    if config.features == "standin":
        from dhdiff_ray.metrics.standin import StandinFeatures

        return StandinFeatures()
    if config.features == "small":
        from dhdiff_ray.metrics.small import small_classifier

        return small_classifier(config.weights_dir)
    from dhdiff_ray.metrics.published import Inception

    return Inception(config)


def open_perceiver(config: ScoreConfig) -> Perceiver:
    """The perceptual network that a configuration names; by default the one its profile uses.

    Raises:
        ValueError: as above.
    """
    if config.features == "standin":
        from dhdiff_ray.metrics.standin import StandinFeatures

        return StandinFeatures()
    if config.features == "small":
        from dhdiff_ray.metrics.small import small_perceiver

        return small_perceiver(config.weights_dir)
    from dhdiff_ray.metrics.published import Lpips

    return Lpips(config, config.backbone or profile_of(config).backbone)


def check_files(config: ScoreConfig) -> None:
    """Say what is missing before anything is computed, without loading it.

    Raises:
        ValueError: every missing file is named, with the ways out.
    """
    if config.features == "inception":
        from dhdiff_ray.metrics.weights import find

        wanted = {"is": "inception", "kid": "inception"}
        perceptual = config.backbone or profile_of(config).backbone
        find(config, dict.fromkeys(wanted.get(metric, perceptual) for metric in config.metrics if metric != "masks"))
    elif config.features == "small":
        from dhdiff_ray.metrics.small import find_small

        find_small(config.weights_dir)
