"""Size and place of the masks of a category, real beside made, for the page's plots.

Not in the paper. Decided: the first ``MOST`` of each side are read, so that the page of a large run is still made soon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhdiff_ray.data.images import ImageError, read_mask
from dhdiff_ray.metrics.masks import properties
from dhdiff_ray.pairs.writer import layout_of, read_pair, read_pair_rows
from dhdiff_ray.records import Sample
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.run import SPLIT, Run

MOST = 150


@dataclass(frozen=True)
class Shapes:
    """Properties (n, 5) of the masks of one category (``metrics.masks.properties``), empty ones left out."""

    category: str
    real: np.ndarray
    made: np.ndarray


def mask_shapes(run: Run) -> list[Shapes]:
    """Of every category that has pairs; real masks that cannot be read from here are left out."""
    if not run.folder.exists(SPLIT):
        return []
    wanted = run.config.data.categories
    found = []
    for name in run.split.categories:
        if (wanted and name not in wanted) or not layout_of(run.folder, name):
            continue
        try:
            made = _made(run, read_pair_rows(run.folder, name)[:MOST])
        except DamagedError:
            continue  # the gallery names it
        real = _real(run, [sample for sample in run.category(name).train if not sample.is_good][:MOST])
        found.append(Shapes(name, real, made))
    return found


def _made(run: Run, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return _table(read_pair(run.folder, dict(row))[1] for row in rows)


def _real(run: Run, samples: Sequence[Sample]) -> np.ndarray:
    def masks() -> Iterable[np.ndarray]:
        for sample in samples:
            try:
                yield read_mask(sample, run.config.data.resolution)
            except ImageError:
                continue

    return _table(masks())


def _table(masks: Iterable[np.ndarray]) -> np.ndarray:
    return np.array([properties(mask) for mask in masks if mask.any()]).reshape(-1, 5)
