"""The paper's Tables I to VII beside what a run measured (section IV), and why two columns do not stand side by side.

The numbers are the paper's, as printed, in ``paper/*.csv``. What we decided: averages are recomputed from the rows,
because several printed ones do not match them; our column joins a table only if it was measured as the paper says,
else it stands in a table of its own that names every difference.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.report.tables import DASH, Table, in_words

AVERAGES = ("average", "avg")
OTHER_NAMES = {"s._connectors": "splicing_connectors", "fryum": "fryum"}
"""Categories whose archive has another name than the paper."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    number: str
    title: str
    dataset: str
    file: str
    columns: tuple[str, ...]
    """Its figures, by our name for them."""
    scale: float = 100.0
    """What ours is multiplied by: the paper prints percent."""
    wide: str = ""
    """Of tables with a column per method: the one figure they hold."""


TABLES = (
    PaperTable("I", "IS and IC-LPIPS on MVTec AD", "mvtec", "table1_mvtec_is_ic_lpips", ("is", "ic_lpips"), 1.0),
    PaperTable("II", "AUROC on MVTec AD", "mvtec", "table2_mvtec_auroc", ("image_auroc", "pixel_auroc")),
    PaperTable("III", "AUROC on MPDD", "mpdd", "table3_mpdd_auroc", ("image_auroc", "pixel_auroc")),
    PaperTable("IV", "Pixel AUROC and AP on MVTec AD", "mvtec", "table4_mvtec_pixel", ("pixel_auroc", "pixel_ap")),
    PaperTable("V", "AUROC on MPDD, means", "mpdd", "table5_mpdd", ("image_auroc", "pixel_auroc"), wide="metric"),
    PaperTable("VI", "Image AUROC on VisA", "visa", "table6_visa_image", ("image_auroc",)),
    PaperTable("VII", "Image AUROC on MVTec LOCO", "loco", "table7_loco_image", ("image_auroc",), wide="image_auroc"),
)
_PRINTED = {"inception_score": "is"}
Cells = dict[str, dict[str, tuple[float | None, ...]]]
"""Row (a category, or a kind and a category) -> method -> figures."""


def paper_tables(
    config: Config,
    scores: Sequence[Mapping[str, Any]],
    detection: Mapping[str, Any],
    categories: Sequence[str] = (),
) -> list[Table]:
    """The paper's tables for the run's dataset, ours beside or below; none where the run is not on the paper's data.

    Args:
        config: the run's.
        scores: the rows of ``scores.json``.
        detection: ``detection.json``.
        categories: the run's, as far as they are known; with one that the paper has not, only the layout is the
            dataset's.
    """
    shown: list[Table] = []
    if not set(map(category_name, categories)) <= papers_categories(config.data.dataset):
        return shown
    for paper in TABLES:
        if paper.dataset != config.data.dataset:
            continue
        ours = _scored(scores) if paper.number == "I" else _detected(detection, paper)
        reasons = why_not(paper, config, scores, detection)
        cells, printed = read(paper)
        table = Table(f"Table {paper.number} of the paper: {paper.title}", [])
        if ours and not reasons:
            for row, values in ours.items():
                cells.setdefault(row, {})["this run"] = values
        _fill(table, cells, printed, paper)
        shown.append(table)
        if ours and reasons:
            title = f"Table {paper.number}: this run, not measured alike"
            separate = Table(title, ["Category", *map(in_words, paper.columns)])
            separate.note = "Not to be compared with the paper's: " + "; ".join(reasons) + "."
            separate.rows = [[row, *(_number(v) for v in values)] for row, values in sorted(ours.items())]
            separate.kinds = [""] * len(separate.rows)
            shown.append(separate)
    return shown


def read(paper: PaperTable) -> tuple[Cells, dict[str, tuple[float | None, ...]]]:
    """A table's rows by category and method, and its printed averages by method."""
    text = files("dhdiff_ray.report").joinpath("paper", f"{paper.file}.csv").read_text()
    cells: Cells = {}
    averages: dict[str, tuple[float | None, ...]] = {}
    for line in csv.DictReader(text.splitlines()):
        if paper.wide == "metric":
            by_method = {method: float(value) for method, value in line.items() if method != "metric"}
            at = 0 if line["metric"].startswith("Image") else 1
            for method, value in by_method.items():
                before = averages.get(method, (None,) * len(paper.columns))
                averages[method] = tuple(value if i == at else old for i, old in enumerate(before))
            continue
        name = category_name(line["category"])
        if paper.wide:
            methods = {m: (float(v),) for m, v in line.items() if m not in ("type", "category")}
            row = f"{name} ({'logical' if line['type'] == 'LA' else 'structural'})"
        else:
            keys = [key for key in line if key not in ("category", "method")]
            ordered = sorted(keys, key=lambda key: paper.columns.index(_PRINTED.get(key, key)))
            methods = {line["method"]: tuple(float(line[key]) for key in ordered)}
            row = name
        if name in AVERAGES:
            averages |= methods
        else:
            cells.setdefault(row, {}).update(methods)
    return cells, averages


def papers_categories(dataset: str) -> set[str]:
    """The categories of a dataset that the paper measured, as the archives name them."""
    rows = [row for paper in TABLES if paper.dataset == dataset for row in read(paper)[0]]
    return {row.split(" (")[0] for row in rows}


def recomputed(cells: Cells) -> dict[str, tuple[float | None, ...]]:
    """Per method, the mean over the rows that have it."""
    methods = dict.fromkeys(method for row in cells.values() for method in row)
    means = {}
    for method in methods:
        columns = zip(*(row[method] for row in cells.values() if method in row), strict=True)
        values_of_column = [[value for value in column if value is not None] for column in columns]
        means[method] = tuple(sum(values) / len(values) if values else None for values in values_of_column)
    return means


def why_not(
    paper: PaperTable, config: Config, scores: Sequence[Mapping[str, Any]], detection: Mapping[str, Any]
) -> list[str]:
    """What differs between this run and the paper's measurement; empty if nothing that is known to matter does."""
    reasons = []
    if config.data.resolution != 256:
        reasons.append(f"images of {config.data.resolution} pixels, not 256")
    if paper.number == "I":
        wanted = {
            "is": {"profile": "torch-fidelity", "splits": 10},
            "ic_lpips": {"profile": "anomalydiffusion", "backbone": "lpips 0.1, vgg"},
        }
        for row in (s for s in scores if s["level"] == "defect"):
            for name, conditions in wanted.items():
                if row["metric"].startswith(name + "_"):
                    reasons.append(f"{row['metric']} is measured with other networks ({row['conditions']['backbone']})")
                elif row["metric"] == name:
                    have = {key: row["conditions"].get(key) for key in conditions}
                    reasons += [f"{name}: {k} {have[k]}, not {v}" for k, v in conditions.items() if have[k] != v]
                    if row["n"] != 1000:
                        reasons.append(f"{name}: {row['n']} images of a defect, not 1000")
        return list(dict.fromkeys(reasons))
    used = detection.get("conditions", {})
    if used and (used.get("network"), used.get("channels")) != ("draem", 64):
        reasons.append(f"a {used.get('network')} detector with {used.get('channels')} channels, not the peers' U-Net")
    if used.get("select") == "test":
        reasons.append("selected on the test set")
    if config.data.split != "full":  # the paper's test set read literally
        share = {"fraction": f"{1 - config.data.train_fraction:.0%}", "half": "50%", "third": "two thirds"}
        share |= {"kshot": f"all but {config.data.shots} of each defect", "given": "the given test side"}
        reasons.append(
            f"tested on the held-out part of the anomalies ({share[config.data.split]}); the paper's test set is the "
            "archive's, which holds the half that was trained on"
        )
    return reasons


def category_name(printed: str) -> str:
    """The archive's name of a category as the paper prints it."""
    name = printed.strip().lower().replace(" ", "_")
    return OTHER_NAMES.get(name, name)


def _scored(scores: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float | None, ...]]:
    by_category: dict[str, list[float | None]] = {}
    for row in scores:
        for at, name in enumerate(("is", "ic_lpips")):
            if row["level"] == "category" and (row["metric"] == name or row["metric"].startswith(f"{name}_")):
                by_category.setdefault(row["category"], [None, None])[at] = row["value"]
    return {category: tuple(values) for category, values in by_category.items()}


def _detected(detection: Mapping[str, Any], paper: PaperTable) -> dict[str, tuple[float | None, ...]]:
    by_category = {}
    for category, row in detection.items():
        if category != "conditions" and row.get("synthetic"):
            values = (row["synthetic"].get(column) for column in paper.columns)
            by_category[category] = tuple(None if value is None else value * paper.scale for value in values)
    return by_category


def _fill(table: Table, cells: Cells, printed: Mapping[str, tuple[float | None, ...]], paper: PaperTable) -> None:
    methods = list(dict.fromkeys([m for row in cells.values() for m in row] + list(printed)))
    table.heads = ["Category", *methods]
    table.note = "Each cell: " + " / ".join(map(in_words, paper.columns)) + ", as printed."
    rows: list[tuple[str, Mapping[str, tuple[float | None, ...]], str]] = [(c, row, "") for c, row in cells.items()]
    if cells:
        rows.append(("mean of the rows", recomputed(cells), "run"))
    if printed:
        rows.append(("average as printed", printed, "category"))
        wrong = _mismatches(printed, recomputed(cells))
        if wrong:
            table.note += f" Printed averages that do not match their rows: {', '.join(wrong)}."
    for name, row, kind in rows:
        table.rows.append([name, *(_cell(row.get(method)) for method in methods)])
        table.kinds.append(kind)


def _mismatches(printed: Mapping[str, tuple[float | None, ...]], means: Mapping[str, Any]) -> list[str]:
    """Methods whose printed average is off by more than rounding."""
    wrong = []
    for method, values in printed.items():
        pairs = [(p, m) for p, m in zip(values, means.get(method, ()), strict=False) if p is not None and m is not None]
        # Percent are printed with one digit, the scores of Table I with two.
        if any(abs(p - m) > (0.1 if p > 10 else 0.01) for p, m in pairs):
            wrong.append(method)
    return wrong


def _cell(values: tuple[float | None, ...] | None) -> str:
    return " / ".join(map(_number, values)) if values else DASH


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}" if value > 10 else f"{value:.2f}"
