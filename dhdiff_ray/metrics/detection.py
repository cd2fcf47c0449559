"""How well a probability map finds the defect: AUROC, AP, F1-max, PRO, and agreement between masks (section IV-D).

Over all pixels of all test images, normal ones included, as the peers do; unlike their scripts a pixel is positive
when its mask is non-zero, for every metric alike, and F1 is maximal over every threshold, not over twenty. None stands
where a metric is undefined (only one class present).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhdiff_ray.metrics.pro import Region, check_numbers, pro, spro
from dhdiff_ray.metrics.ranking import Ranking

PRO_LIMIT = 0.3
"""False positive rate up to which the peers integrate PRO."""
SPRO_LIMIT = 0.05
"""False positive rate up to which MVTec LOCO's tables integrate sPRO."""


def auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve; both arrays are flattened."""
    return Ranking.of(labels, scores).auroc


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision; both arrays are flattened."""
    return Ranking.of(labels, scores).average_precision


def f1_max(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The largest F1 over all thresholds; both arrays are flattened."""
    return Ranking.of(labels, scores).f1_max


def localisation(
    masks: np.ndarray,
    probabilities: np.ndarray,
    image_scores: np.ndarray,
    strict_masks: np.ndarray | None = None,
    regions: Sequence[Region] = (),
) -> dict[str, float | int | None]:
    """The figures of the paper's detection tables (both AUROCs and pixel AP), and those its peers add.

    Args:
        masks: true masks (n, h, w), positive where non-zero; an all-zero mask is a normal image.
        probabilities: predicted probability of a defect (n, h, w).
        image_scores: one score per image (n,).
        strict_masks: other true masks for the pixel figures save PRO, as the peers' scripts have them.
        regions: annotated defects with saturation areas; ``spro`` is there if they are.
    """
    pixels = masks if strict_masks is None else strict_masks
    defective = np.asarray(masks.reshape(len(masks), -1).any(axis=1))
    check_numbers(probabilities)
    images, every = Ranking.of(defective, image_scores), Ranking.of(pixels, probabilities)
    return {
        "image_auroc": images.auroc,
        "pixel_auroc": every.auroc,
        "pixel_ap": every.average_precision,
        "image_ap": images.average_precision,
        "image_f1_max": images.f1_max,
        "pixel_f1_max": every.f1_max,
        "pro": pro(masks, probabilities, PRO_LIMIT),
        **({"spro": spro(regions, masks, probabilities, SPRO_LIMIT)} if regions else {}),
        "n_good": int((~defective).sum()),
        "n_defect": int(defective.sum()),
    }


def agreement(masks: np.ndarray, probabilities: np.ndarray) -> dict[str, float | int | None]:
    """Whether made masks lie where an oracle sees the defect, so whether image and mask agree.

    Args:
        masks: made masks (n, h, w), positive where non-zero.
        probabilities: the oracle's map on the made images (n, h, w); a mask where it is above 0.5.

    Returns:
        ``iou``: mean over pairs of the intersection over union, where a pair with an empty made mask counts 0;
        ``ap``: average precision of the oracle's map over all pixels of the pairs whose mask is not empty;
        ``nonempty``: share of pairs whose mask is not empty; ``n``: pairs.

    Raises:
        ValueError: no pairs, or maps with NaN or infinity.
    """
    if len(masks) == 0:
        raise ValueError("no pairs to compare; make some first: dhdiff-ray submit synthesize --run NAME")
    check_numbers(probabilities)
    made = masks.reshape(len(masks), -1) > 0
    scores = probabilities.reshape(len(masks), -1)
    seen = scores > 0.5
    # An empty made mask has no intersection, hence IoU 0; the maximum only avoids 0 / 0 when the oracle sees nothing.
    iou = (made & seen).sum(axis=1) / np.maximum((made | seen).sum(axis=1), 1)
    nonempty = made.any(axis=1)
    return {
        "iou": float(iou.mean()),
        "ap": average_precision(made[nonempty], scores[nonempty]) if nonempty.any() else None,
        "nonempty": float(nonempty.mean()),
        "n": len(masks),
    }
