import numpy as np
import pytest

from dhdiff_ray.metrics.base import add, merge, summarise, table
from dhdiff_ray.records import Score


def test_merge_sorts_by_name_and_takes_a_repeated_shard_once():
    one, two = {"b": np.array([2.0])}, {"a": np.array([1.0])}
    merged = merge([one, two, one])
    assert list(merged) == ["a", "b"]
    names, rows = table({"b": np.array([2.0]), "a": np.array([1.0])})
    assert names == ["a", "b"]
    assert rows.tolist() == [[1.0], [2.0]]


def test_two_results_for_one_image_are_refused():
    with pytest.raises(ValueError, match="'a'"):
        merge([{"a": np.array([1.0])}, {"a": np.array([2.0])}])


def test_sums_add_up_whatever_is_missing():
    total = add([{"p": np.array([1.0, 2.0])}, {}, {"p": np.array([0.5, 0.0]), "n": np.array(1)}])
    assert total["p"].tolist() == [1.5, 2.0]
    assert total["n"] == 1


def test_references_are_averaged_like_values():
    scores = {("bottle", d): Score("kid", v, 3, {}, r) for d, v, r in (("a", 1.0, 0.2), ("b", 3.0, None))}
    rows = {row["level"]: row for row in summarise(scores)}
    assert (rows["category"]["value"], rows["category"]["reference"]) == (2.0, 0.2)


def test_means_are_over_defects_then_over_categories():
    scores = {
        ("bottle", "crack"): Score("is", 1.0, 10, {"splits": 2, "std": 0.1}),
        ("bottle", "hole"): Score("is", 2.0, 10, {"splits": 2, "std": 0.2}),
        ("cable", "cut"): Score("is", 4.0, 10, {"splits": 2, "std": 0.1}),
        ("cable", "poke"): Score("is", None, 1, {"splits": 2, "std": 0.1}),
    }
    rows = {(row["level"], row["category"], row["defect"]): row for row in summarise(scores)}
    assert len(rows) == 4 + 2 + 1
    assert rows["category", "bottle", None]["value"] == 1.5
    assert rows["category", "cable", None]["value"] == 4.0
    assert rows["run", None, None]["value"] == pytest.approx(2.75)
    assert rows["run", None, None]["n"] == 31
    assert rows["category", "cable", None]["conditions"]["defects_without_value"] == 1
    # What differs between the parts is no condition of their mean.
    assert rows["category", "bottle", None]["conditions"] == {
        "splits": 2,
        "defects_in_mean": 2,
        "defects_without_value": 0,
    }


def test_a_summary_of_nothing_is_empty():
    assert summarise({}) == []
