"""Tables of the page: scores beside their conditions, agreement of the pairs, detection, time (sections IV-C and IV-D).

A condition that all rows share stands above the table; one that differs gets a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TITLES = {
    "is": "Inception Score",
    "is_standin": "Inception Score with stand-in features",
    "ic_lpips": "IC-LPIPS",
    "ic_lpips_standin": "IC-LPIPS with stand-in features",
}
DASH = "–"


@dataclass
class Table:
    """Heads and rows of text; ``kinds`` has one style per row."""

    title: str
    heads: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    conditions: dict[str, str] = field(default_factory=dict)
    note: str = ""


def score_tables(scores: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table per metric, the run's mean first, then each category with its defects."""
    return [_scores(m, [s for s in scores if s["metric"] == m]) for m in dict.fromkeys(s["metric"] for s in scores)]


def alignment_table(alignment: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """How well masks lie on what an oracle sees in their images, by category."""
    if not alignment:
        return None
    oracle_keys = list(dict.fromkeys(key for row in alignment.values() for key in (row.get("oracle") or {})))
    heads = [
        "Category",
        "Mean IoU",
        "Pixel AP",
        "Masks not empty",
        "Pairs",
        *(f"Oracle: {_words(k)}" for k in oracle_keys),
    ]
    table = Table("Do image and mask agree", heads)
    table.note = (
        "An oracle, a localiser trained on real images and masks, looks at each made image. IoU is between the made "
        "mask and the oracle's map above 0.5, averaged over all pairs; a pair with an empty mask counts 0. AP is over "
        "all pixels of the pairs whose mask is not empty. The oracle's own figures are on real test images."
    )
    for category, row in sorted(alignment.items()):
        oracle = row.get("oracle") or {}
        cells = [text(row.get("iou")), text(row.get("ap")), share(row.get("nonempty")), text(row.get("n"))]
        table.rows.append([category, *cells, *(text(oracle.get(key)) for key in oracle_keys)])
        table.kinds.append("")
    return table


def detection_table(detection: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The localiser trained on made pairs beside one trained on real pairs, both tested on the held-out real images."""
    if not detection:
        return None
    heads = [
        "Category",
        "Trained on",
        "Pairs",
        "Image AUROC",
        "Pixel AUROC",
        "Pixel AP",
        "Test: normal",
        "Test: defect",
    ]
    table = Table("Does a detector learn from the pairs", heads)
    table.note = "One U-Net per category, the weights after its last step; nothing is selected on the test images."
    table.conditions = {_words(key): text(value) for key, value in detection.get("conditions", {}).items()}
    for category, row in sorted((name, row) for name, row in detection.items() if name != "conditions"):
        for key, words in (("synthetic", "made pairs"), ("real", "real pairs")):
            found = row.get(key)
            if not found:
                continue
            found = {"n_pairs": found.get("n_train"), **found}
            values = (found.get(k) for k in ("n_pairs", "image_auroc", "pixel_auroc", "pixel_ap", "n_good", "n_defect"))
            table.rows.append([category, words, *(text(value) for value in values)])
            table.kinds.append("first" if key == "synthetic" else "")
        if row.get("ratio_pixel_ap") is not None:
            table.conditions[f"{category}: pixel AP, made over real"] = text(row["ratio_pixel_ap"])
    return table


def timing_table(timings: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]]) -> Table | None:
    """Seconds per verb, as measured, or else between the first and the last event of each verb."""
    table = Table("Time", ["Part", "Seconds"])
    if timings:
        seconds = timings.get("seconds", {k: v for k, v in timings.items() if isinstance(v, int | float)})
        if timings.get("total_seconds") is not None:
            table.conditions["Total"] = f"{timings['total_seconds']:.0f} s"
        if timings.get("peak_memory_bytes"):
            measure = f" ({timings['memory_measure']})" if timings.get("memory_measure") else ""
            table.conditions["Peak memory" + measure] = f"{timings['peak_memory_bytes'] / 1e9:.1f} GB"
    else:
        spans: dict[str, list[float]] = {}
        for event in events:
            if isinstance(event.get("time"), int | float) and event.get("verb"):
                spans.setdefault(str(event["verb"]), []).append(float(event["time"]))
        seconds = {verb: max(times) - min(times) for verb, times in spans.items()}
        table.note = "From the first to the last event of each verb; reruns count with the pause between them."
    if not seconds:
        return None
    table.rows = [[part, f"{value:.1f}"] for part, value in seconds.items()]
    table.kinds = [""] * len(table.rows)
    return table


def text(value: Any) -> str:
    """Three digits after the point, whole numbers as they are, a dash for none, a list as what is in it how often."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        counts = Counter(value)
        return ", ".join(text(item) + (f" (×{n})" if n > 1 else "") for item, n in sorted(counts.items()))
    return str(value)


def share(value: float | None) -> str:
    """A share in percent."""
    return DASH if value is None else f"{value:.0%}"


def _scores(metric: str, scores: Sequence[Mapping[str, Any]]) -> Table:
    per_defect = [s for s in scores if s.get("level") == "defect"] or list(scores)
    keys = list(dict.fromkeys(key for score in per_defect for key in score["conditions"]))
    values = {key: [text(score["conditions"].get(key)) for score in per_defect] for key in keys}
    shared = {_words(key): found[0] for key, found in values.items() if len(set(found)) == 1}
    differing = [key for key in keys if len(set(values[key])) > 1]
    table = Table(TITLES.get(metric, metric), ["Category", "Defect", metric, "Images", *map(_words, differing)])
    table.conditions = shared
    if metric.endswith("_standin"):
        table.note = "Stand-in features: random weights. The figures compare runs of this tool at best, never papers."
    level = {"run": 0, "category": 1, "defect": 2}
    for score in sorted(
        scores, key=lambda s: (s.get("category") or "", level.get(s.get("level", ""), 3), s.get("defect") or "")
    ):
        names = [score.get("category") or "all categories", score.get("defect") or "mean"]
        own = [text(score["conditions"].get(key)) for key in differing]
        table.rows.append([*names, text(score["value"]), text(score["n"]), *own])
        table.kinds.append(score.get("level") or "")
    return table


def _words(key: str) -> str:
    known = {"ap": "AP", "iou": "IoU", "n_good": "normal images", "n_defect": "defect images"}
    return known.get(key, key.replace("_", " ").replace("auroc", "AUROC").replace(" ap", " AP"))
