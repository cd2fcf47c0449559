"""Bright blobs on noise with exact masks: the easiest defects there are."""

import numpy as np
import pytest


def draw_blobs(count: int, seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images with one blob each, their masks, and images without."""
    draw = np.random.default_rng(seed)
    noise = draw.integers(60, 120, (2 * count, side, side, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:side, :side]
    masks = np.zeros((count, side, side), np.uint8)
    for mask in masks:
        y, x = draw.integers(6, side - 6, 2)
        mask[np.hypot(rows - y, columns - x) < draw.uniform(3, 6)] = 255
    images = noise[:count]
    images[masks > 0] = np.minimum(images[masks > 0].astype(int) + 90, 255).astype(np.uint8)
    return images, masks, noise[count:]


@pytest.fixture(scope="session")
def blobs():
    return draw_blobs(24, seed=0)


@pytest.fixture(scope="session")
def other_blobs():
    return draw_blobs(12, seed=1)
