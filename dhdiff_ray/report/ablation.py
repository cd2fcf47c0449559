"""From the cells of an ablation to one table beside the paper's (section IV-E, Tables VIII and IX).

Decided: a figure is the mean over categories of one seed, then mean and standard deviation over seeds; two rows are
compared by seed too, since the categories of one seed are not independent of each other; the paper's column is named as
another dataset's and is never compared by number.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dhdiff_ray.config import AblationConfig

REAL = "real"
"""The row of the localiser that is trained on the real training pairs: the scale of all others."""
FIGURES = ("pixel_ap", "pixel_auroc", "image_auroc", "iou", "ap", "nonempty")


def summarise(cells: Iterable[dict[str, Any]], ablation: AblationConfig) -> list[dict[str, Any]]:
    """One row of the table per row of the recipe, in its order, ``real`` first; rows without a finished seed too.

    Args:
        cells: one dict per row, seed and category, as ``on_ray.ablate`` writes them.
        ablation: the recipe's rows.

    Returns:
        Per row: ``row``, ``paper``, ``seeds`` (whole ones), and per figure ``{"mean", "std", "<category>"}``.
    """
    cells = list(cells)
    categories = sorted({c["category"] for c in cells})
    table = []
    for name, paper in [(REAL, None), *((row.name, row.paper) for row in ablation.rows)]:
        of_row = [c for c in cells if c["row"] == name]
        count = Counter(c["seed"] for c in of_row)
        whole = sorted(seed for seed, cells_done in count.items() if cells_done == len(categories))
        row: dict[str, Any] = {"row": name, "paper": paper, "seeds": whole}
        for figure in FIGURES:
            whole_cells = [c for c in of_row if c["seed"] in whole and c.get(figure) is not None]
            values = {(c["seed"], c["category"]): float(c[figure]) for c in whole_cells}
            if values and len(values) == len(whole) * len(categories):
                per_seed = [statistics.fmean(values[s, k] for k in categories) for s in whole]
                by_category = {k: statistics.fmean(values[s, k] for s in whole) for k in categories}
                spread = statistics.stdev(per_seed) if len(per_seed) > 1 else None
                row[figure] = {"mean": statistics.fmean(per_seed), "std": spread, **by_category}
        trained = [c["seconds"]["train"] for c in of_row if "train" in c.get("seconds", {})]
        row["train_seconds"] = statistics.fmean(trained) if trained else None
        table.append(row)
    return table


def lead(cells: Iterable[dict[str, Any]], row: str, other: str, figure: str = "pixel_ap") -> tuple[list[float], float]:
    """How far one row leads another, seed by seed, and the p-value of a paired t-test over the seeds.

    Raises:
        ValueError: fewer than two seeds have both rows.
    """
    from scipy.stats import ttest_rel

    by_seed: dict[str, dict[int, list[float]]] = {row: {}, other: {}}
    for cell in cells:
        if cell["row"] in by_seed and cell.get(figure) is not None:
            by_seed[cell["row"]].setdefault(cell["seed"], []).append(float(cell[figure]))
    seeds = sorted(by_seed[row].keys() & by_seed[other].keys())
    if len(seeds) < 2:
        raise ValueError(f"{row} and {other} have {len(seeds)} seeds in common; a comparison needs two or more")
    ours, theirs = ([statistics.fmean(by_seed[name][seed]) for seed in seeds] for name in (row, other))
    test: Any = ttest_rel(ours, theirs)
    return [a - b for a, b in zip(ours, theirs, strict=True)], float(test.pvalue)


def as_rows(table: Sequence[dict[str, Any]], short: bool = False) -> tuple[list[str], list[list[str]]]:
    """Heading and lines of the page: pixel AP and alignment in percent, by category too; ``short`` fits a terminal."""
    named = {k for row in table for k in row.get("pixel_ap", {}) if k not in ("mean", "std")}
    categories = [] if short else sorted(named)
    head = ["row", "pixel AP", *(f"AP {c}" for c in categories), "mask IoU", *(f"IoU {c}" for c in categories)]
    head += ["not empty", "seeds", *(["paper (MVTec)"] if short else ["train s", "paper*"])]
    lines = []
    for row in table:
        line = [row["row"]]
        for figure in ("pixel_ap", "iou"):
            line += [_spread(row.get(figure)), *(_one(row.get(figure), c) for c in categories)]
        line += [_one(row.get("nonempty"), "mean"), str(len(row["seeds"]))]
        if not short:
            line.append("-" if row["train_seconds"] is None else f"{row['train_seconds']:.0f}")
        lines.append([*line, "-" if row["paper"] is None else f"{row['paper']:.1f}"])
    return head, lines


def as_markdown(table: Sequence[dict[str, Any]], ablation: AblationConfig, conditions: dict[str, Any]) -> str:
    """The table as a page with its conditions."""
    head, lines = as_rows(table)
    rule = ["---", *["---:"] * (len(head) - 1)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
    listed = "\n".join(f"- {name}: {value}" for name, value in conditions.items())
    return (
        f"# {ablation.table or 'Ablation'}\n\n{text}\n\n"
        "Pixel AP: of a localiser trained on made pairs, tested on held-out real images. Mask IoU: of made masks with "
        "what a localiser trained on real pairs sees in the made images. All in percent; mean over categories, ± "
        "standard deviation over seeds. `real` is the localiser trained on the real training pairs.\n\n"
        "\\* The paper's pixel AP on MVTec AD: another dataset, another backbone; not comparable by number.\n\n"
        f"{listed}\n"
    )


def _spread(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    spread = "" if figure["std"] is None else f" ± {100 * figure['std']:.1f}"
    return f"{100 * figure['mean']:.1f}{spread}"


def _one(figure: dict[str, Any] | None, key: str) -> str:
    return "-" if figure is None or key not in figure else f"{100 * figure[key]:.1f}"
