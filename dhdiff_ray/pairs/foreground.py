"""Where the product lies in an image, so that a defect is not placed beside it (not in the paper).

Decided: no network and no setting. The background is what the image's edge shows, as a plane of colours since light
falls off; the product is the largest piece that differs from it by more than it varies, small holes filled. Otsu's
threshold, tried first, cut two-coloured products in two and found pieces in textures. Where little differs, or no one
piece, or the image's edge cuts it, the product fills the image. A shadow counts as the product.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, binary_opening, gaussian_filter, label

EDGE = 0.04
"""Width of the image's edge, as a share of its side."""
QUIET = 0.7
"""Share of the edge that the background is fitted to; the product may come near with the rest."""
FITS = 4
"""Times it is fitted, each time to the pixels that were nearest to it."""
CUT = 0.3
"""Longest that a product lies along the image's edge, by the root of its area; what is cut fills the image."""
APART = 4.0
"""How many times as far from the background's colours the product is as that share of the edge."""
LEAST = 12.0
"""The least that counts as another colour, in grey values."""
HOLE = 0.08
"""Width of the smallest hole that is no product, as a share of the image's side."""
FEWEST, MOST = 0.03, 0.97
"""Of the image, what a product covers that does not fill it."""
ONE_PIECE = 0.7
"""Share of what differs that lies in its largest piece; less is a texture."""


def foreground(image: np.ndarray) -> np.ndarray:
    """Where the product is.

    Args:
        image: uint8 (h, w, 3).

    Returns:
        bool (h, w); true everywhere if no background is found.
    """
    everything = np.ones(image.shape[:2], bool)
    edge = everything.copy()
    wide = max(1, round(EDGE * min(edge.shape)))
    edge[wide:-wide, wide:-wide] = False
    away = _from_background(image, edge)
    differs = binary_opening(away > max(LEAST, APART * np.quantile(away[edge], QUIET)))
    pieces, count = label(differs)  # pyright: ignore[reportGeneralTypeIssues]
    if not count:
        return everything
    sizes = np.bincount(pieces.ravel())[1:]
    product = _filled(pieces == 1 + int(sizes.argmax()))
    along = product[[0, -1]].sum() + product[:, [0, -1]].sum()
    whole = along <= CUT * product.sum() ** 0.5 and sizes.max() >= ONE_PIECE * sizes.sum()
    return product if whole and FEWEST <= product.mean() <= MOST else everything


def _filled(piece: np.ndarray) -> np.ndarray:
    """A piece (h, w) without its small holes; through a large one the background is seen."""
    filled = np.asarray(binary_fill_holes(piece), bool)
    large = binary_opening(filled & ~piece, iterations=max(1, round(HOLE * min(piece.shape) / 2)))
    return filled & np.logical_not(large)


def _from_background(image: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """How far each pixel's colour (h, w) is from a plane fitted to the edge's, which may hold some of the product."""
    height, width = edge.shape
    blur = min(height, width) / 128
    colours = gaussian_filter(image.astype(np.float64), (blur, blur, 0))
    y, x = np.indices((height, width))
    at = np.stack([np.ones((height, width)), x / width, y / height], -1)
    near, places = colours[edge], at[edge]
    trusted = np.ones(len(near), bool)
    for _ in range(FITS):
        plane, *_ = np.linalg.lstsq(places[trusted], near[trusted], rcond=None)
        away = np.linalg.norm(near - places @ plane, axis=-1)
        trusted = away <= np.quantile(away, QUIET)
    return np.linalg.norm(colours - at @ plane, axis=-1)
