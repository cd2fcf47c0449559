"""Per-region overlap: does the map find every defect, small ones as much as large ones, before it calls false alarms.

Section IV-D reports AUROC and AP only; the peers add PRO and MVTec LOCO defines sPRO (Bergmann et al., IJCV 2022). At a
threshold, PRO is the mean over regions of the share that is found, sPRO that of min(found area / saturation area, 1);
either is integrated over the false positive rate on defect-free pixels up to a limit and divided by it. Here exactly,
by sorting once, at every threshold there is; the peers' script takes 100 thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

EIGHT = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner belong to one piece."""


@dataclass(frozen=True)
class Region:
    """One thing to be found."""

    image: int
    """Index of its map."""
    pixels: np.ndarray
    """(h, w), true inside."""
    saturation: float
    """Found area in pixels that counts as all of it; PRO: the whole area."""


def pro(masks: np.ndarray, maps: np.ndarray, limit: float = 0.3) -> float | None:
    """PRO over connected regions.

    Args:
        masks: (n, h, w), positive where non-zero; regions are its 8-connected pieces.
        maps: (n, h, w), larger is more suspicious.
        limit: of the false positive rate.

    Returns:
        A number from 0 to 1, or None where there is no region or no defect-free pixel.
    """
    return spro(regions_of(masks), masks, maps, limit)


def regions_of(masks: np.ndarray) -> list[Region]:
    """The connected pieces of masks (n, h, w), each saturated by its own area."""
    regions = []
    for image, mask in enumerate(np.asarray(masks) > 0):
        pieces, count = label(mask, EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
        regions += [Region(image, pieces == at, float((pieces == at).sum())) for at in range(1, count + 1)]
    return regions


def spro(regions: Sequence[Region], masks: np.ndarray, maps: np.ndarray, limit: float = 0.05) -> float | None:
    """Saturated PRO over given regions, normal images included.

    Args:
        regions: what is to be found; LOCO: one per annotated defect, with its saturation area.
        masks: (n, h, w), non-zero on any defect; the rest is defect-free.
        maps: (n, h, w), larger is more suspicious.
        limit: of the false positive rate; LOCO's table uses 0.05.

    Raises:
        ValueError: a limit outside (0, 1], or maps with what is no number.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"the limit of the false positive rate must lie in (0, 1], got {limit}")
    check_numbers(maps)
    free = maps[np.asarray(masks) == 0].ravel()
    if not regions or not len(free):
        return None
    # Each pixel of a region, from the most suspicious down, adds its share until the region is saturated.
    scores, gains = [], []
    for region in regions:
        inside = np.sort(maps[region.image][region.pixels])[::-1]
        filled = np.minimum(np.arange(1, len(inside) + 1) / max(region.saturation, 1.0), 1)
        scores.append(inside)
        gains.append(np.diff(filled, prepend=0) / len(regions))
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    # Between two scores of regions the overlap stays, however many false pixels come: corners alone make the curve.
    levels, first = np.unique(-every[order], return_index=True)
    found = np.cumsum(np.concatenate(gains)[order])[np.append(first[1:], len(every)) - 1]
    false = np.sort(-free)
    above, upto = (np.searchsorted(false, levels, side=side) / len(false) for side in ("left", "right"))
    x = np.stack([above, upto], 1).ravel()
    y = np.stack([np.append(0, found[:-1]), found], 1).ravel()
    return _area(np.concatenate([[0], x, [1]]), np.concatenate([[0], y, found[-1:]]), limit)


def check_numbers(maps: np.ndarray) -> None:
    """Refuse maps with a value that is not a number, which would otherwise be sorted to one end.

    Raises:
        ValueError: how many maps have such values.
    """
    bad = np.flatnonzero(np.isnan(maps).reshape(len(maps), -1).any(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(maps)} maps hold values that are no numbers (NaN), the first is number {bad[0]}; the "
            "network that made them is broken or was trained with too high a learning rate"
        )


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoids under y(x) from 0 to the limit, over the limit; y is cut where x passes it."""
    inside = x <= limit
    # Where x passes the limit, the straight line between its neighbours is cut.
    end = float(np.interp(limit, x, y)) if not inside.all() else float(y[-1])
    x, y = np.append(x[inside], limit), np.append(y[inside], end)
    return float(np.trapezoid(y, x) / limit)
