"""Tables of the page: scores beside their conditions, agreement of the pairs, detection, time (sections IV-C and IV-D).

A condition that all rows share stands above the table; one that differs gets a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.report.price import planned, spent

TITLES = {
    "is": "Inception Score",
    "inception_at_real_n": "Inception Score of made and real images at one N",
    "ic_lpips": "IC-LPIPS",
    "kid": "Kernel Inception Distance to the real training anomalies",
    "originality": "Originality: median distance to the nearest real training anomaly",
    "mask_empty": "Masks: share that is empty",
    "mask_area": "Masks: area, distance to real ones",
    "mask_position": "Masks: position, distance to real ones",
    "mask_compactness": "Masks: compactness, distance to real ones",
    "mask_pieces": "Masks: number of pieces, distance to real ones",
    "mask_overlap": "Masks: largest overlap with a real training mask, mirrored ones too",
}
NOTES = {
    "is": "It grows with the number of images: never compare two scores of different N. To compare "
    "with real images at the same N, see inception_at_real_n.",
    "inception_at_real_n": "The Inception Score grows with N, so made and real images are cut into parts of one size, "
    "as many images as the smaller side has; a part of few images scores low on both sides.",
}
STANDINS = {
    "_standin": ("with stand-in features", "Stand-in features: random weights."),
    "_small": ("with small networks", "Small real networks in place of the published ones."),
    "_module": ("with another network", "Another network in place of the published ones."),
    "_own": ("with own weights", "Weights that are not the published ones."),
}
"""Endings of metrics that were not measured with the published networks: what the title and the note say."""
KINDS = {
    "synthetic": "made pairs",
    "real": "real pairs",
    "real_synthetic": "real and made pairs",
    "pasted": "pasted real defects",
    "real_pasted": "real and pasted defects",
    "real_pasted_synthetic": "real, pasted and made",
    "cutpaste": "CutPaste",
    "draem": "Perlin shapes, as DRAEM",
    "normal": "normal images alone",
}
"""Detectors in the order they are shown."""
FIGURES = {
    "image_auroc": "Image AUROC",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "image_ap": "Image AP",
    "image_f1_max": "Image F1-max",
    "pixel_f1_max": "Pixel F1-max",
    "pro": "PRO (0.3)",
    "spro": "sPRO (0.05)",
}
"""Figures of a detector; sPRO is shown where the data has saturation areas (MVTec LOCO)."""
SELECTED = {
    "last": "The weights after the last step; nothing is selected on the test images.",
    "heldout": "The weights that did best on training pairs held out; nothing is selected on the test images.",
    "test": "SELECTED ON THE TEST IMAGES, as the peers do: optimistic, for comparison with their figures only.",
}
DASH = "–"
SMALL = 0.00995
"""Below it three digits after the point would say too little."""
COSTS = {
    "train_worker_hours": "training, worker hours",
    "synthesize_worker_hours": "making pairs, worker hours",
    "gpu_hours": "both, GPU hours",
    "cpu_hours": "both, core hours",
    "pairs": "pairs",
}
"""What a job costs, as it is told."""


@dataclass
class Table:
    """Heads and rows of text; ``kinds`` has one style per row."""

    title: str
    heads: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    conditions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    standin: bool = False
    """Whether its figures were measured with other networks than the published ones."""


def score_tables(scores: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table per metric, the run's mean first, then each category with its defects."""
    return [_scores(m, [s for s in scores if s["metric"] == m]) for m in dict.fromkeys(s["metric"] for s in scores)]


def alignment_table(alignment: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """How well masks lie on what an oracle sees in their images, by category."""
    if not alignment:
        return None
    scaled = any(row.get("reference") for row in alignment.values())
    again = any(row.get("drawn_again") for row in alignment.values())
    oracle_keys = list(dict.fromkeys(key for row in alignment.values() for key in (row.get("oracle") or {})))
    heads = [
        "Category",
        "Mean IoU",
        *(["Real IoU"] if scaled else []),
        "Pixel AP",
        *(["Real AP"] if scaled else []),
        "Masks not empty",
        *(["Drawn again"] if again else []),
        "Pairs",
        *(f"Oracle: {in_words(k)}" for k in oracle_keys),
    ]
    table = Table("Do image and mask agree", heads)
    table.note = (
        "An oracle, a localiser trained on real images and masks, looks at each made image. IoU is between the made "
        "mask and the oracle's map above 0.5, averaged over all pairs; a pair with an empty mask counts 0. AP is over "
        "all pixels of the pairs whose mask is not empty. The oracle's own figures are on real test images; real IoU "
        "and AP are the same agreement with held-out real masks: compare the made ones with these."
    )
    if again:
        table.note += " Drawn again were pairs whose first mask was empty, or agreed less than was asked for."
    for category, row in sorted(alignment.items()):
        oracle = row.get("oracle") or {}
        real = row.get("reference") or {}
        cells = [text(side.get(key)) for key in ("iou", "ap") for side in ((row, real) if scaled else (row,))]
        cells += [share(row.get("nonempty")), *([share(row.get("drawn_again"))] if again else []), text(row.get("n"))]
        table.rows.append([category, *cells, *(text(oracle.get(key)) for key in oracle_keys)])
        table.kinds.append("")
    return table


def detection_table(detection: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The localiser trained on made pairs beside one trained on real pairs, both tested on the held-out real images."""
    if not detection:
        return None
    kinds = [kind for row in detection.values() for kind in row.values() if isinstance(kind, Mapping)]
    figures = [name for name in FIGURES if name != "spro" or any("spro" in kind for kind in kinds)]
    heads = ["Category", "Trained on", "Pairs", *(FIGURES[n] for n in figures), "Test: normal", "Test: defect"]
    table = Table("Does a detector learn from the pairs", heads)
    table.note = "One detector per category and kind. " + SELECTED.get(
        detection.get("conditions", {}).get("select", "last"), ""
    )
    table.conditions = {in_words(key): text(value) for key, value in detection.get("conditions", {}).items()}
    for category, row in sorted((name, row) for name, row in detection.items() if name != "conditions"):
        for key, words in KINDS.items():
            row_of_kind = row.get(key)
            if not row_of_kind:
                continue
            seen = [row_of_kind[name] for name in ("n_train", "n_pairs", "n_pasted") if name in row_of_kind]
            row_of_kind = {"pairs": sum(seen) if seen else None, **row_of_kind}
            told = [_with_spread(row_of_kind, name) for name in figures]
            seen_of = [text(row_of_kind.get(name)) for name in ("n_good", "n_defect")]
            table.rows.append([category, words, text(row_of_kind["pairs"]), *told, *seen_of])
            table.kinds.append("first" if key == "synthetic" else "")
        if row.get("ratio_pixel_ap") is not None:
            table.conditions[f"{category}: pixel AP, made over real"] = text(row["ratio_pixel_ap"])
    return table


def _with_spread(figures: Mapping[str, Any], name: str) -> str:
    """A figure, and over several trainings its standard deviation."""
    values = [one.get(name) for one in figures.get("by_seed", ())]
    several = len(values) > 1 and None not in values
    return text(figures.get(name)) + (f" ± {stdev(values):.3f}" if several else "")


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


def cost_table(config: Config, events: Sequence[Mapping[str, Any]]) -> Table | None:
    """Hours and pairs as planned when the job started, and as spent by now."""
    plan, now = planned(events), spent(config, events)
    if not plan and not any(now.values()):
        return None
    table = Table("Planned and spent", ["What", "Planned", "Spent"])
    table.note = "Hours of workers while they trained or drew; scores, detectors and waiting are not in them."
    table.conditions = {"Planned by the pace of": str(plan.get("measured_in") or "no run: none like this was measured")}
    table.rows = [[words, text(plan.get(name)), text(now[name])] for name, words in COSTS.items()]
    table.kinds = [""] * len(table.rows)
    return table


def text(value: Any) -> str:
    """Three digits after the point or, of small numbers, the first two; a dash for none; a list as counts."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < SMALL else f"{value:.3f}"
    if isinstance(value, list | tuple):
        counts = Counter(value)
        return ", ".join(text(item) + (f" (×{n})" if n > 1 else "") for item, n in sorted(counts.items())) or DASH
    return str(value)


def share(value: float | None) -> str:
    """A share in percent."""
    return DASH if value is None else f"{value:.0%}"


def _scores(metric: str, scores: Sequence[Mapping[str, Any]]) -> Table:
    per_defect = [s for s in scores if s.get("level") == "defect"] or list(scores)
    keys = list(dict.fromkeys(key for score in per_defect for key in score["conditions"]))
    values = {key: [text(score["conditions"].get(key)) for score in per_defect] for key in keys}
    shared = {in_words(key): texts[0] for key, texts in values.items() if len(set(texts)) == 1}
    differing = [key for key in keys if len(set(values[key])) > 1]
    standin = next((words for ending, words in STANDINS.items() if metric.endswith(ending)), ("", ""))
    title = f"{TITLES.get(base_name(metric), metric)} {standin[0]}".strip()
    scaled = any(score.get("reference") is not None for score in scores)
    reference = ["Real against real"] if scaled else []
    table = Table(title, ["Category", "Defect", metric, *reference, "Images", *map(in_words, differing)])
    table.conditions, table.standin = shared, bool(standin[1])
    notes = [f"{standin[1]} The figures compare runs of this tool at best, never papers."] if standin[1] else []
    notes += [NOTES[base_name(metric)]] if base_name(metric) in NOTES else []
    notes += ["Real against real: the same for the held-out real anomalies."] if scaled else []
    table.note = " ".join(notes)
    level = {"run": 0, "category": 1, "defect": 2}
    for score in sorted(
        scores, key=lambda s: (s.get("category") or "", level.get(s.get("level", ""), 3), s.get("defect") or "")
    ):
        names = [score.get("category") or "all categories", score.get("defect") or "mean"]
        differing_cells = [text(score["conditions"].get(key)) for key in differing]
        scale = [text(score.get("reference"))] if scaled else []
        table.rows.append([*names, text(score["value"]), *scale, text(score["n"]), *differing_cells])
        table.kinds.append(score.get("level") or "")
    return table


def base_name(metric: str) -> str:
    """The metric's name without the ending that marks other networks than the published ones."""
    for ending in STANDINS:
        metric = metric.removesuffix(ending)
    return metric


def in_words(key: str) -> str:
    """The name of a figure or a condition as a table has it."""
    words = {
        "ap": "AP",
        "iou": "IoU",
        "is": "IS",
        "ic_lpips": "IC-LPIPS",
        "n_good": "normal images",
        "n_defect": "defect images",
    }
    return words.get(key, key.replace("_", " ").replace("auroc", "AUROC").replace(" ap", " AP"))
