"""The start from a placed reference: how far it is noised, and where its defect lies (section III-B).

Decided: both follow from the pair's own seed, each by a generator of its own, so that a further try of a pair is placed
elsewhere and the noise of a pair is the same whatever it starts from. The network is shown the placed defect's cells as
the control map, as in training, and draws inside its grown mask instead of in those squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config, SynthesizeConfig
from dhdiff_ray.records import Request

if TYPE_CHECKING:
    from dhdiff_ray.pairs.placement import Placed


def strength_of(request: Request, settings: SynthesizeConfig) -> float:
    """How far a pair's start is noised: ``synthesize.strength``, or drawn from its range by the pair's seed."""
    least, most = settings.strengths
    return least if least == most else float(np.random.default_rng((request.seed, 1)).uniform(least, most))


def placed_on(
    base: np.ndarray, lent: tuple[np.ndarray, np.ndarray], request: Request, config: Config, drawing: np.ndarray | None
) -> Placed:
    """The reference's defect on a base.

    Args:
        base: uint8 (h, w, 3).
        lent: the reference uint8 (h, w, 3), and its mask (h, w).
        request: whose seed places.
        config: ``synthesize.placement``, and ``train.flips``, which says whether a mirrored product is a product.
        drawing: (h, w), above zero where a user wants the defect; None leaves the place to the seed.

    Raises:
        ValueError: the reference's mask is empty.
    """
    from dhdiff_ray.pairs.placement import OWN, Placing, place

    image, mask = lent
    if not (mask > 0).any():
        raise ValueError(
            f"the mask of {request.reference} is empty at {config.data.resolution} pixels, so there is no defect to "
            "start from; leave that image out (data verify names such), or use synthesize.start = noise"
        )
    how = OWN if config.synthesize.placement == "own" else Placing(mirror=config.train.flips)
    return place(base, image, mask, request.seed, how, drawing)


def start_told(request: Request, settings: SynthesizeConfig) -> dict[str, Any]:
    """What a pair's row in ``metadata.jsonl`` says of its start; empty unless it started from a reference."""
    if settings.start != "reference":
        return {}
    strength = round(strength_of(request, settings), 6)
    return {"start": settings.start, "strength": strength, "placement_seed": request.seed}
