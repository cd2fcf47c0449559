"""How new made images are: LPIPS distance of each to the nearest real training anomaly.

Not in the paper; a generator that copies its few training images scores well on much else. What we decided: the scale
is how far held-out real anomalies are from the training ones, and an image is flagged as a copy when it is nearer to a
training image than half the least distance between any two different real ones of its defect.
"""

from __future__ import annotations

import numpy as np

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.ic_lpips import CentreDistances
from dhdiff_ray.records import Score

COPY = 0.5
"""An image is a copy below this share of the least distance between real ones."""
NAMED = 10
"""Copies that are named."""


def originality(first: CentreDistances, made: State, held_out: State) -> Score:
    """Originality of one defect's images.

    Args:
        first: the real training anomalies.
        made: distances to them by made image, as ``first.observe`` gives them.
        held_out: distances to them of the real held-out anomalies.

    Returns:
        The median distance of a made image to its nearest training image; ``reference`` is that of held-out images.
    """
    names, rows = table(made)
    nearest = rows.min(axis=1)
    real = table(held_out)[1].min(axis=1) if held_out else np.array([])
    among = first.among()
    positive = [d for d in (*real, *among) if d > 0]
    limit = COPY * min(positive) if positive else None
    copies = [name for name, d in zip(names, nearest, strict=True) if limit is not None and d < limit]
    conditions = {
        "backbone": first.perceiver.perceiver,
        "weights": first.perceiver.digest,
        "n_real": len(first.centres),
        "n_held_out": len(real),
        "least": float(nearest.min()),
        "copy_below": limit,
        "copies": len(copies),
        "copies_named": [f"{name} of {first.centres[int(np.argmin(made[name]))]}" for name in copies[:NAMED]],
    }
    reference = float(np.median(real)) if len(real) else None
    name = first.perceiver.metric_name("originality")
    return Score(name, float(np.median(nearest)), len(names), conditions, reference)
