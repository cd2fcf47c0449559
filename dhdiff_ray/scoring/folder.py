"""Scores of a folder of images without a run: other people's results, or pairs that were copied somewhere (IV-C).

What we decided: the real images of each defect are cut as AnomalyDiffusion's script cuts them, the first third by name
being what was trained on and so the centres, unless told otherwise; the rest is held out and gives the references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.base import summarise
from dhdiff_ray.metrics.features.choose import check_files
from dhdiff_ray.records import Score
from dhdiff_ray.scoring.defect import Defect, DefectScorer, RealImages, describe
from dhdiff_ray.scoring.made import MadeImages, check_sizes, find_made, read_made, read_made_mask

Cut = Literal["third", "half", "all"]
NEED_REAL = ("ic_lpips", "originality", "kid")
"""Metrics that compare with real images."""


def score_folder(
    root: Path,
    config: ScoreConfig,
    *,
    real: Path | None = None,
    masks: Path | None = None,
    cut: Cut = "third",
    side: int | None = None,
    categories: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score every defect that lies in a folder.

    Args:
        root: the folder; ``scoring/made.py`` has the layouts.
        config: what to compute and with what.
        real: real anomalies in one of the same layouts, or a plain folder for a single defect.
        masks: folder of masks, where ``root`` is a plain folder.
        cut: how many of a defect's real images, the first by name, were trained on.
        side: resize everything to this square; None takes images as they are, all of one size.
        categories: score only these.
        seed: first seed of the draws.
        tell: takes one line per defect.

    Returns:
        ``scores`` as in a run's ``scores.json``, ``conditions``, and ``left_out`` with the reason by metric.

    Raises:
        ValueError: a folder without images, images of two sizes, a defect without real images, missing weights.
    """
    made = [one for one in find_made(root, masks) if not categories or one.category in categories]
    if not made:
        raise ValueError(f"{root} has none of the categories {', '.join(categories)}; leave out --category to see all")
    left_out: dict[str, str] = {}
    if real is None:
        left_out = {metric: "needs real images: --real FOLDER" for metric in config.metrics if metric in NEED_REAL}
        config = config.model_copy(update={"metrics": tuple(m for m in config.metrics if m not in left_out)})
    if "masks" in config.metrics and not any(one.masks for one in made):
        left_out["masks"] = f"no masks beside the images ({made[0].layout})"
    check_files(config)
    if side is None:
        check_sizes([path for one in made for path in one.images])
    candidates = find_made(real) if real else []
    pairs = [(one, _real_of(one, candidates, made, real)) for one in made]
    scorer = DefectScorer(config, seed, keep_sums=True)
    scores: dict[str, dict[tuple[str, str], Score]] = {}
    for one, theirs in pairs:
        tell(f"{one.category}/{one.defect}: {len(one.images)} images, {len(theirs.images) if theirs else 0} real ones")
        defect = _defect(one, theirs, cut, side)
        for score in scorer.value(defect, scorer.observe(defect, defect.names)):
            scores.setdefault(score.metric, {})[one.category, one.defect] = score
    rows = [row for name in sorted(scores) for row in summarise(scores[name])]
    shared = {"folder": str(root), "layout": made[0].layout, "real": str(real) if real else None, "real_cut": cut}
    return {"scores": rows, "conditions": {**describe(config), **shared, "seed": seed}, "left_out": left_out}


def _real_of(
    one: MadeImages, candidates: Sequence[MadeImages], made: Sequence[MadeImages], real: Path | None
) -> MadeImages | None:
    """The real images of a defect: of the same names, or the only ones there are for the only defect there is."""
    if real is None:
        return None
    same = [r for r in candidates if (r.category, r.defect) == (one.category, one.defect)]
    alike = same or [r for r in candidates if r.defect == one.defect]
    if len(alike) == 1:
        return alike[0]
    if len(candidates) == len(made) == 1:
        return candidates[0]
    there = ", ".join(f"{r.category}/{r.defect}" for r in candidates)
    raise ValueError(
        f"{one.category}/{one.defect} has no real images in {real} to be compared with; there are: {there}. "
        "Name folders alike, or score one defect at a time with its own --real FOLDER"
    )


def _defect(one: MadeImages, theirs: MadeImages | None, cut: Cut, side: int | None) -> Defect:
    paths = {path.name: path for path in one.images}
    without = [path for path in one.images if path.stem not in one.masks]
    if one.masks and without:
        raise ValueError(f"{len(without)} images have no mask of the same stem, the first is {without[0]}")
    train, held_out = RealImages(), RealImages()
    if theirs is not None:
        count = {"third": len(theirs.images) // 3, "half": len(theirs.images) // 2, "all": len(theirs.images)}[cut]
        if count == 0:
            raise ValueError(
                f"{one.category}/{one.defect} has {len(theirs.images)} real images, too few to take a {cut} of; "
                "pass --centres all"
            )
        train, held_out = (_read(theirs, paths, side) for paths in (theirs.images[:count], theirs.images[count:]))
    return Defect(
        one.category,
        one.defect,
        tuple(paths),
        lambda name: read_made(paths[name], side),
        (lambda name: read_made_mask(one.masks[paths[name].stem])) if one.masks else None,
        train,
        held_out,
    )


def _read(real: MadeImages, paths: Sequence[Path], side: int | None) -> RealImages:
    masks = [read_made_mask(real.masks[path.stem]) for path in paths if path.stem in real.masks]
    return RealImages(tuple(path.name for path in paths), tuple(read_made(path, side) for path in paths), tuple(masks))
