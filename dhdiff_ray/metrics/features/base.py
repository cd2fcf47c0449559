"""What the scores need of a network: class probabilities, pooled features, perceptual features (section IV-C)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Network(ABC):
    """A network and its identity.

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
    """The network behind the Inception Score and KID."""

    classifier: str
    """The network's name, with its architecture."""

    def classify(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities, float64 (n, k), and pooled features, float32 (n, d), of images uint8 (n, h, w, 3)."""
        seen = [self._classify(image) for image in images]
        return np.stack([p for p, _ in seen]), np.stack([pooled for _, pooled in seen])

    @abstractmethod
    def _classify(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Perceiver(Network):
    """The network behind IC-LPIPS and originality."""

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
