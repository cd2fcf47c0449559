"""Coarse regions drawn from a fine mask: raw mask, reference image, control mask (section III-B, Fig. 4).

What we decided: cell edges are i * side / K rounded, so that K need not divide the image; removed pixels become
mid-grey, which is zero after scaling to [-1, 1]. What is drawn by hand has one rule, here for arrays and in
``model/inputs.py`` for tensors, since neither package may import the other: a point stands for the cell that holds its
pixel, a box for every pixel that it touches, and points and boxes together for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

BLANK = 127
"""Grey value of removed pixels."""


def raw_mask(mask: np.ndarray, grid: int) -> np.ndarray:
    """The cells of a grid x grid raster that touch the anomaly (the paper's raw mask, K = ``grid``).

    Args:
        mask: (h, w), above zero is anomaly.
        grid: cells per side.

    Returns:
        uint8 (h, w) of 0 and 255.
    """
    rows, columns = _edges(mask.shape[0], grid), _edges(mask.shape[1], grid)
    present = (mask > 0).astype(np.uint8) * 255
    cells = np.maximum.reduceat(np.maximum.reduceat(present, rows[:-1], axis=0), columns[:-1], axis=1)
    return cells.repeat(np.diff(rows), axis=0).repeat(np.diff(columns), axis=1)


def reference_image(
    image: np.ndarray, raw_mask: np.ndarray, mode: Literal["defect", "background", "full", "none"]
) -> np.ndarray:
    """What the reference stream sees: the raw-mask cells kept, removed, the whole image, or nothing.

    Args:
        image: uint8 (h, w, 3).
        raw_mask: (h, w), above zero inside the cells.
        mode: see above; the paper's figure keeps the cells.

    Returns:
        uint8 (h, w, 3); removed pixels are mid-grey.
    """
    inside = (raw_mask > 0)[..., None]
    blank = np.full_like(image, BLANK)
    if mode == "defect":
        return np.where(inside, image, blank)
    if mode == "background":
        return np.where(inside, blank, image)
    if mode == "full":
        return image.copy()
    if mode == "none":
        return blank
    raise ValueError(f"reference mode {mode!r} is unknown; use defect, background, full or none")


def drawn_control(
    points: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
    side: int,
    grid: int,
    picture: tuple[int, int] | None = None,
) -> np.ndarray:
    """Control mask of what is drawn by hand on a picture.

    Args:
        points: (x, y) in the picture's pixels from the top left corner.
        boxes: (left, top, right, bottom) in such pixels.
        side: of the square control mask in pixels.
        grid: cells per side.
        picture: width and height in pixels of what was drawn on; None: side and side.

    Returns:
        uint8 (side, side) of 0 and 255.

    Raises:
        ValueError: a point or box outside the picture, or an empty box.
    """
    width, height = picture or (side, side)
    clicked, filled = np.zeros((2, side, side), np.uint8)
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point ({x}, {y}) lies outside the {width} x {height} image")
        clicked[int(y * side / height), int(x * side / width)] = 255
    for left, top, right, bottom in boxes:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            box = (left, top, right, bottom)
            raise ValueError(f"box {box} must be (left, top, right, bottom) inside the {width} x {height} image")
        rows = slice(int(top * side / height), -int(-bottom * side // height))
        filled[rows, int(left * side / width) : -int(-right * side // width)] = 255
    return np.maximum(raw_mask(clicked, grid), filled)


def window_around(
    region: np.ndarray, side: int, draw: tuple[float, float] = (0.5, 0.5), align: int = 1
) -> tuple[slice, slice]:
    """A square window that holds the region, as row and column slices.

    Args:
        region: (h, w), above zero where something shall be drawn.
        side: of the window in pixels; a region that is larger is cut.
        draw: where the window lies between the two extremes, each in [0, 1]; 0.5 centres the region.
        align: the window begins at a multiple of so many pixels, which may cut the region by less than that.
    """
    slices = []
    for axis in (0, 1):
        length = region.shape[axis]
        inside = np.flatnonzero(region.any(axis=1 - axis))
        first, last = (inside[0], inside[-1]) if len(inside) else (0, length - 1)
        ends = sorted((int(last) + 1 - side, int(first)))
        low, high = (min(max(end, 0), max(length - side, 0)) for end in ends)
        start = low + round(draw[axis] * (high - low))
        start = min(round(start / align) * align, max(length - side, 0) // align * align)
        slices.append(slice(start, start + side))
    return slices[0], slices[1]


def _edges(side: int, grid: int) -> np.ndarray:
    if not 1 <= grid <= side:
        raise ValueError(f"a grid of {grid} cells does not fit an image side of {side} pixels; set data.grid")
    return np.array([round(i * side / grid) for i in range(grid + 1)])
