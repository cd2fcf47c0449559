"""The networks behind IS and IC-LPIPS: class probabilities and perceptual features (section IV-C).

``open_features`` gives the published networks from files on this machine (``published.py``), or labelled stand-ins with
fixed random weights that need no file (``standin.py``). Stand-ins exist so that the whole line can run and be tested
anywhere; their scores mean nothing beside the paper's, so their metrics carry another name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from dhdiff_ray.config import ScoreConfig


class FeatureExtractor(ABC):
    """Two networks and what identifies them.

    Images go through one at a time: a convolution's last bits may depend on the size of its batch, and a score must
    not depend on how the images were sharded.
    """

    name: ClassVar[str]
    """What ``score.features`` calls it."""
    classifier: ClassVar[str]
    """The network that gives probabilities."""
    perceiver: ClassVar[str]
    """The network that gives perceptual features."""
    suffix: ClassVar[str] = ""
    """Appended to the name of every metric."""
    digest: str
    """Hash of all weights, 16 hexadecimal digits."""

    def metric_name(self, metric: str) -> str:
        """``is`` or ``ic_lpips`` as it may be printed."""
        return metric + self.suffix

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities, float64 (n, k), of images uint8 (n, h, w, 3)."""
        return np.stack([self._probabilities(image) for image in images])

    def perceptual(self, images: np.ndarray) -> np.ndarray:
        """Features, float32 (n, d), of images uint8 (n, h, w, 3): LPIPS is the squared distance between two rows."""
        return np.stack([self._perceptual(image) for image in images])

    @abstractmethod
    def _probabilities(self, image: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _perceptual(self, image: np.ndarray) -> np.ndarray: ...


def open_features(config: ScoreConfig) -> FeatureExtractor:
    """The networks that a configuration names.

    Raises:
        ValueError: a file of the published networks is missing; the message names it and the ways out.
    """
    if config.features == "standin":
        from dhdiff_ray.metrics.standin import StandinFeatures

        return StandinFeatures()
    from dhdiff_ray.metrics.published import PublishedFeatures

    return PublishedFeatures(config.weights_dir)
