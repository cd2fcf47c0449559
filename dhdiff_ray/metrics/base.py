"""Metrics that can be computed in parts: observe, merge, value.

Section IV-C scores many images; here they are scored in shards. A state is either a table from an image's name to its
row of numbers, which ``merge`` puts together (the same bytes for any sharding), or a few sums, which ``add`` adds up
(the same number for any sharding, up to the last bits of float64, in memory that does not grow with the images).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dhdiff_ray.records import Score

State = dict[str, np.ndarray]
"""Rows by image name, or sums by their own names."""


def merge(states: Iterable[Mapping[str, np.ndarray]]) -> State:
    """One state out of many, sorted by name; a row that came twice (a repeated shard) counts once.

    Raises:
        ValueError: two rows of one name differ, so they are not of the same image or the same network.
    """
    merged: State = {}
    for state in states:
        for name, row in state.items():
            if name in merged and not np.array_equal(merged[name], row):
                raise ValueError(
                    f"two different results for {name!r}; score the pairs of one run at a time, with one set of weights"
                )
            merged[name] = row
    return dict(sorted(merged.items()))


def add(states: Iterable[Mapping[str, np.ndarray]]) -> State:
    """One state out of many sums; an empty state adds nothing."""
    total: State = {}
    for state in states:
        for name, value in state.items():
            total[name] = total[name] + value if name in total else value
    return total


def table(state: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Names in their order, and their rows stacked in that order."""
    names = sorted(state)
    return names, np.stack([state[name] for name in names])


def summarise(scores: Mapping[tuple[str, str], Score]) -> list[dict[str, Any]]:
    """Scores of one metric by (category, defect) as rows for ``scores.json``, with their means.

    A category's value is the plain mean over its defects, the run's the plain mean over its categories, as in the
    paper's tables; a defect without a value is left out of the mean, and the conditions say so.

    Returns:
        One row per defect, category and run: the score's fields plus ``level``, ``category`` and ``defect``.
    """
    rows: list[dict[str, Any]] = []
    categories: dict[str, list[Score]] = {}
    for (category, defect), score in sorted(scores.items()):
        rows.append({"level": "defect", "category": category, "defect": defect, **score.as_dict()})
        categories.setdefault(category, []).append(score)
    means = {category: _mean(of_defects, "defects") for category, of_defects in categories.items()}
    rows += [{"level": "category", "category": name, "defect": None, **s.as_dict()} for name, s in means.items()]
    if means:
        whole = _mean(list(means.values()), "categories")
        rows.append({"level": "run", "category": None, "defect": None, **whole.as_dict()})
    return rows


def _mean(scores: list[Score], over: str) -> Score:
    values = [score.value for score in scores if score.value is not None]
    # Only what holds for every part is a condition of the mean.
    first = scores[0].conditions
    shared = {k: v for k, v in first.items() if all(score.conditions.get(k) == v for score in scores)}
    counts = {f"{over}_in_mean": len(values), f"{over}_without_value": len(scores) - len(values)}
    references = [score.reference for score in scores if score.reference is not None]
    return Score(
        scores[0].metric,
        float(np.mean(values)) if values else None,
        sum(score.n for score in scores),
        {**shared, **counts},
        float(np.mean(references)) if references else None,
    )
