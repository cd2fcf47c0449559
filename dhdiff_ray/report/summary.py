"""What a run is worth, in two plain sentences: do the pairs help a detector, and do masks lie on their defects.

Not in the paper. The first sentence is ``detector.results.verdicts``; this file says the second. Decided: agreement is
read beside that of real pairs, since no oracle draws a border as a person does; without that scale no word judges it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from dhdiff_ray.detector.results import MISSING, verdicts

WELL, PARTLY = 0.8, 0.5
"""Share of the real pairs' agreement above which masks lie well, or partly, on their defects."""


@dataclass(frozen=True)
class Sentence:
    """A judgement and the figures it rests on."""

    lead: str
    told: str


def pairs_sentence(detection: Mapping[str, Any]) -> Sentence | None:
    """Whether the pairs help, over all categories; None where no detector was tested."""
    lines = verdicts(detection)
    if not lines:
        return None
    names = sorted(name for name in detection if name != "conditions")
    subject = names[0] if len(names) == 1 else f"{len(names)} categories"
    if MISSING in lines[0]:
        return Sentence(_of_pairs_alone([detection[name] for name in names]) or MISSING, lines[0])
    return Sentence(lines[0].removeprefix(f"{subject}: ").partition(": ")[0], lines[0])


def _of_pairs_alone(rows: Sequence[Mapping[str, Any]]) -> str:
    """How much of the real ones' worth made pairs have, where both were trained on alone; else empty."""
    ratios = [float(row["ratio_pixel_ap"]) for row in rows if row.get("ratio_pixel_ap") is not None]
    if len(ratios) < len(rows):
        return ""
    return f"Made pairs alone give a detector {mean(ratios):.0%} of the pixel AP that real ones give"


def masks_sentence(alignment: Mapping[str, Mapping[str, Any]]) -> Sentence | None:
    """Whether masks lie on their defects, over all pairs; None where no score was made."""
    rows = [row for row in alignment.values() if row.get("iou") is not None and row.get("n")]
    if not rows:
        return None
    pairs = sum(row["n"] for row in rows)
    iou = sum(row["iou"] * row["n"] for row in rows) / pairs
    told = f"A detector trained on real images marks the defect too: IoU with the made masks {iou:.2f}"
    scales = [(row.get("reference") or {}).get("iou") for row in rows]
    nonempty = sum((row.get("nonempty") or 0) * row["n"] for row in rows) / pairs
    rest = f"; {nonempty:.0%} of {pairs:,} masks are not empty."
    if None in scales:
        lead = "Whether masks lie on their defects cannot be judged yet"
        return Sentence(lead, f"{told}, not measured on real masks{rest}")
    real = sum(scale * row["n"] for scale, row in zip(scales, rows, strict=True)) / pairs
    share = iou / real if real else 0.0
    lead = (
        "Masks lie on their defects"
        if share >= WELL
        else "Masks lie on their defects in part"
        if share >= PARTLY
        else "Masks often miss their defects"
    )
    return Sentence(lead, f"{told}, with held-out real masks {real:.2f}{rest}")
