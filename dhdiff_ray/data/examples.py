"""Tiny drawn pictures for the loaders' ``example``: noise with a dark spot, and the spot's mask.

Not in the paper. The pictures differ from each other, so that a check for duplicates finds none.
"""

from __future__ import annotations

import numpy as np

SIZE = (24, 24)


def noise(rng: np.random.Generator, size: tuple[int, int] = SIZE, channels: int = 3) -> np.ndarray:
    """A bright noisy picture, uint8 (h, w, 3), or (h, w) for one channel."""
    return rng.integers(90, 200, size=(*size, channels) if channels > 1 else size, dtype=np.uint8)


def spot(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Where a small defect is, bool (h, w); never empty, never more than a sixth of the picture."""
    mask = np.zeros(size, dtype=bool)
    top, left = (int(rng.integers(2, side // 2)) for side in size)
    mask[top : top + size[0] // 4, left : left + size[1] // 3] = True
    return mask


def spoiled(rng: np.random.Generator, size: tuple[int, int] = SIZE, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a defect, and the defect's mask uint8 (h, w) of 0 and 255."""
    picture, mask = noise(rng, size, channels), spot(rng, size)
    picture[mask] = 20
    return picture, mask.astype(np.uint8) * 255
