"""How alike made and real masks are: area, position, compactness, pieces, and the share of empty ones.

Not in the paper, which shows no figure of its masks alone. What we decided: each property is compared as a
distribution, by the Wasserstein-1 distance to the masks of the real training anomalies, beside the same distance for
the real held-out ones; rows per image merge like any other state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import label
from scipy.stats import wasserstein_distance

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.pro import EIGHT
from dhdiff_ray.records import Score

AREA, X, Y, COMPACTNESS, PIECES = range(5)


def mask_rows(names: Sequence[str], masks: Sequence[np.ndarray] | np.ndarray) -> State:
    """Properties, float64 (5,), of each mask (h, w), defect where non-zero."""
    return {name: properties(mask) for name, mask in zip(names, masks, strict=True)}


def properties(mask: np.ndarray) -> np.ndarray:
    """Share of the area; centre (x, y) from 0 to 1; compactness; pieces. Only the first is a number if it is empty.

    Compactness is 16 * area / perimeter**2 with the perimeter counted in pixel edges: 1 for a square, less for what is
    long, ragged or in pieces.
    """
    inside = np.asarray(mask) > 0
    if not inside.any():
        return np.array([0, np.nan, np.nan, np.nan, 0])
    rows, columns = np.nonzero(inside)
    padded = np.pad(inside, 1).astype(np.int8)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    height, width = inside.shape
    _, pieces = label(inside, EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
    area = len(rows)
    centre = (columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height
    return np.array([area / inside.size, *centre, 16 * area / float(edges) ** 2, pieces])


def mask_scores(made: State, train: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> list[Score]:
    """Scores of one defect's masks.

    Args:
        made: rows of the made masks by name.
        train: masks of the real training anomalies (h, w), of any size.
        held_out: masks of the held-out ones.

    Returns:
        ``mask_empty`` (a share), and the distances ``mask_area``, ``mask_position``, ``mask_compactness`` and
        ``mask_pieces``, each with its real-against-real ``reference`` and both means among the conditions.
    """
    _, ours = table(made)
    near, far = (np.array([properties(mask) for mask in side]).reshape(-1, 5) for side in (train, held_out))
    held_empty = float((far[:, AREA] == 0).mean()) if len(far) else None
    empty = Score("mask_empty", float((ours[:, AREA] == 0).mean()), len(ours), {}, held_empty)
    counts = {"n_real": len(near), "n_held_out": len(far)}
    scores = [empty]
    for name, columns in (("area", [AREA]), ("position", [X, Y]), ("compactness", [COMPACTNESS]), ("pieces", [PIECES])):
        means = {"made_mean": _means(ours, columns), "real_mean": _means(near, columns)} if name != "position" else {}
        value, reference = _distance(ours, near, columns), _distance(far, near, columns)
        scores.append(Score(f"mask_{name}", value, len(ours), {**counts, **means}, reference))
    return scores


def _distance(a: np.ndarray, b: np.ndarray, columns: list[int]) -> float | None:
    """Mean over columns of the Wasserstein-1 distance between the masks that are not empty; None if a side has none."""
    a, b = a[a[:, AREA] > 0], b[b[:, AREA] > 0]
    if not len(a) or not len(b):
        return None
    return float(np.mean([wasserstein_distance(a[:, at], b[:, at]) for at in columns]))


def _means(rows: np.ndarray, columns: list[int]) -> float | None:
    filled = rows[rows[:, AREA] > 0]
    return float(filled[:, columns[0]].mean()) if len(filled) else None
