"""What the detectors' tests gave, kept by category and kind, and put together in ``detection.json`` (section IV-D).

Decided: each detector's figures are a file of their own with what they depend on, so that a job for one category drops
nobody else's, and a rerun tests only what is not there.
"""

from __future__ import annotations

from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.writer import conditions_of, write_card
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

RESULT = "detection.json"
BASELINES = ("real", "real_synthetic", "cutpaste", "draem", "normal")
"""Kinds of detectors beside the one trained on made pairs, in the order they are told."""


def kinds_of(config: Config) -> tuple[str, ...]:
    """The kinds of detectors that are trained."""
    return ("synthetic", *(kind for kind in BASELINES if kind in config.detect.baselines))


def keep(folder: RunFolder, category: str, kind: str, conditions: dict[str, Any], figures: dict[str, Any]) -> None:
    """Write down what one detector's test gave."""
    folder.write_json(_name(category, kind), {"conditions": conditions, "figures": figures})


def kept(folder: RunFolder, category: str, kind: str) -> dict[str, Any] | None:
    """What was written down: ``conditions`` and ``figures``; None if nothing was."""
    name = _name(category, kind)
    return folder.read_json(name) if folder.exists(name) else None


def together(figures: dict[str, Any]) -> dict[str, Any]:
    """A category's detectors, and how much of the real pairs' worth the made ones have."""
    if "real" not in figures:
        return figures
    made, real = (figures[kind]["pixel_ap"] for kind in ("synthetic", "real"))
    return {**figures, "ratio_pixel_ap": made / real if made is not None and real else None}


def collect(run: Run) -> None:
    """Write ``detection.json`` from the figures of every category all of whose detectors were tested alike."""
    config, folder, split = run.config, run.folder, run.split
    result: dict[str, Any] = {}
    for category in split.categories:
        parts = {kind: kept(folder, category, kind) for kind in kinds_of(config)}
        now = conditions_of(run, category)
        if all(part and part["conditions"] == now for part in parts.values()):
            result[category] = together({kind: part["figures"] for kind, part in parts.items() if part})
    result["conditions"] = {
        "split_digest": split.digest,
        "test_holds_training_images": split.test_holds_training_images,
        "config_digest": config.digest(),
        "seed": config.run.seed,
        "resolution": config.data.resolution,
        **config.detect.model_dump(mode="json"),
    }
    folder.write_json(RESULT, result)
    write_card(folder)


def _name(category: str, kind: str) -> str:
    return f"detectors/{category}/{kind}.figures.json"
