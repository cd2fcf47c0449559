"""Two sets of scores side by side, and why some pairs of numbers must not be compared.

Not in the paper. The Inception Score grows with the number of images and IC-LPIPS with the rule, so numbers are put
beside each other only with a warning wherever what they were measured with differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MATTERS = ("profile", "backbone", "weights", "splits", "cap", "estimate", "n_of_a_part")
"""Conditions that must agree for two values to be comparable."""

Row = Mapping[str, Any]


def compare(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of two results by metric, level, category and defect.

    Args:
        ours: the ``scores`` of one result.
        theirs: of the other.

    Returns:
        Rows with ``value`` and ``other``, and one warning per metric and difference.
    """
    by_key = {key(row): row for row in theirs}
    rows: list[dict[str, Any]] = []
    warnings: dict[str, None] = {}
    for row in ours:
        other = by_key.get(key(row))
        if other is None:
            continue
        rows.append({name: row.get(name) for name in ("metric", "level", "category", "defect", "value")})
        rows[-1] |= {"other": other.get("value"), "n": row["n"], "other_n": other["n"]}
        reasons = []
        if row["n"] != other["n"]:
            reasons.append(f"{row['n']} images against {other['n']}; the value depends on how many there are")
        for name in MATTERS:
            here, there = (side["conditions"].get(name) for side in (row, other))
            if here != there:
                reasons.append(f"{name} {here} against {there}")
        warnings |= dict.fromkeys(f"{row['metric']}: {reason}" for reason in reasons)
    return rows, list(warnings)


def key(row: Row) -> tuple[Any, ...]:
    """What identifies a figure: metric, level, category and defect."""
    return row["metric"], row.get("level"), row.get("category"), row.get("defect")
