"""Are made masks new: the largest overlap of each with any real training mask of its defect, mirrored or not.

Not in the paper; masks that start from placed ones may be those again. What we decided: all masks are brought to one
grid of shares of cells, so that the smallest does not vanish, and overlap is the sum of the lesser over the sum of the
greater shares: the IoU where cells are whole. The scale is the same for the real held-out masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.records import Score

SIDE = 64
"""Cells along a side."""
COPY = 0.9
"""Overlap from which a mask is counted as a copy."""


def overlap_rows(names: Sequence[str], masks: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> State:
    """The largest overlap, float64 (1,), of each mask (h, w) with the training masks; nothing of empty ones."""
    known = [cells for mask in train for cells in _mirrored(mask)]
    known = np.stack([cells for cells in known if cells.any()] or [np.zeros((SIDE, SIDE), np.float32)])
    rows: State = {}
    for name, mask in zip(names, masks, strict=True):
        cells = _cells(mask)
        if cells.any():
            lesser, greater = (f(known, cells).sum((1, 2), dtype=np.float64) for f in (np.minimum, np.maximum))
            rows[name] = np.array([(lesser / greater).max()])
    return rows


def overlap_score(made: State, train: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> Score:
    """``mask_overlap`` of one defect, from 0 to 1: the median of the largest overlaps.

    Args:
        made: rows of the made masks by name, as :func:`overlap_rows` gives them.
        train: masks of the real training anomalies (h, w).
        held_out: masks of the held-out ones; theirs is the ``reference``.

    Returns:
        The score; its conditions tell the largest of all, and how many are copies.
    """
    real = overlap_rows([str(at) for at in range(len(held_out))], held_out, train)
    values, others = (table(rows)[1][:, 0] if rows and len(train) else np.array([]) for rows in (made, real))
    conditions = {"n_real": len(train), "n_held_out": len(others), "copy_from": COPY}
    if len(values):
        conditions |= {"largest": float(values.max()), "copies": int((values >= COPY).sum())}
    middle, reference = (float(np.median(v)) if len(v) else None for v in (values, others))
    return Score("mask_overlap", middle, len(values), conditions, reference)


def _mirrored(mask: np.ndarray) -> list[np.ndarray]:
    cells = _cells(mask)
    return [cells, cells[::-1], cells[:, ::-1], cells[::-1, ::-1]]


def _cells(mask: np.ndarray) -> np.ndarray:
    """How much of each cell a mask covers, float32 (SIDE, SIDE)."""
    picture = Image.fromarray((np.asarray(mask) > 0).astype(np.float32))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
