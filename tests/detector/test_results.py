"""Means over trainings, and the verdict."""

import numpy as np
import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.detector.results import together, trainings_of, verdict, verdicts


def of(*values):
    return {"pixel_ap": float(np.mean(values)), "by_seed": [{"pixel_ap": value} for value in values]}


REAL, WITH, PASTED = of(0.680, 0.684, 0.688), of(0.706, 0.712, 0.718), of(0.699, 0.702, 0.705)


def test_pairs_that_help_are_said_to_with_the_spread_over_seeds():
    told = verdict({"synthetic": of(0.5, 0.5, 0.5), "real": REAL, "real_synthetic": WITH, "real_pasted": PASTED})
    assert told == (
        "The pairs help, more than pasted defects: with the pairs pixel AP 71.2 ± 0.6, "
        "with real ones alone 68.4 ± 0.4, with pasted defects 70.2 ± 0.3 (3 seeds)"
    )


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"real": REAL, "real_synthetic": WITH}, "The pairs help: "),
        ({"real": REAL, "real_synthetic": PASTED, "real_pasted": WITH}, "The pairs help, less than pasted defects: "),
        ({"real": REAL, "real_synthetic": WITH, "real_pasted": of(0.70, 0.71, 0.72)}, "from pasted defects no diff"),
        ({"real": WITH, "real_synthetic": REAL, "real_pasted": PASTED}, "The pairs hurt: "),
        ({"real": of(0.6, 0.7, 0.8), "real_synthetic": WITH}, "No difference can be told: "),
        ({"real": {"pixel_ap": 0.6}, "real_synthetic": {"pixel_ap": 0.7}}, "(one seed: no spread)"),
        ({"real": {"pixel_ap": 0.6}, "real_synthetic": {"pixel_ap": 0.7}}, "One training of each tells no difference"),
    ],
)
def test_the_verdict_says_no_more_than_the_spread_allows(figures, words):
    assert words in verdict(figures)


def test_what_was_not_trained_is_not_told_and_what_to_train_is():
    told = verdict({"synthetic": {"pixel_ap": 0.5}, "real": {"pixel_ap": None}, "normal": {"pixel_ap": 0.9}})
    assert told.startswith("Pairs alone pixel AP 50.0 (one seed: no spread). Whether the pairs help beside real ones")
    assert told.endswith("is not measured; add real and real_synthetic to detect.baselines")
    assert "with real ones alone" not in told
    assert verdict({}).endswith("detect.baselines")
    assert "measured; add real_synthetic to" in verdict({"synthetic": {"pixel_ap": 0.5}, "real": {"pixel_ap": 0.8}})


def test_over_categories_the_spread_is_that_of_the_mean():
    rows = {"b": {"real": of(0.5, 0.7), "real_synthetic": of(0.8, 0.8)}, "a": {"real": of(0.7, 0.5)}}
    rows["a"]["real_synthetic"] = of(0.9, 0.9)
    rows["a"]["real_pasted"] = of(0.9, 0.9)  # which b has not
    whole, *each = verdicts({**rows, "conditions": {}})
    assert whole == (
        "2 categories: The pairs help: with the pairs pixel AP 85.0 ± 0.0, with real ones alone 60.0 ± 0.0 (2 seeds)"
    )
    assert [line[:3] for line in each] == ["a: ", "b: "]
    assert verdicts({"a": rows["a"], "conditions": {}}) == each[:1]
    assert verdicts({"conditions": {}}) == []


def test_means_stand_where_one_trainings_figures_stood():
    one = {"pixel_ap": 0.5, "pro": None, "n_good": 2, "selected_on": "x"}
    other = {**one, "pixel_ap": 0.7}
    found = together({("synthetic", 0): one, ("synthetic", 1): other, ("real", 0): other, ("normal", 0): one})
    assert found["synthetic"] == {**one, "pixel_ap": pytest.approx(0.6), "by_seed": [one, other]}
    assert found["real"] == other, "as it was when there was one seed"
    assert found["ratio_pixel_ap"] == pytest.approx(0.6 / 0.7)


def test_a_fit_that_draws_nothing_is_made_once():
    config = Config.model_validate({"detect": {"seeds": 2, "baselines": ["normal", "real"]}})
    assert trainings_of(config) == [("synthetic", 0), ("synthetic", 1), ("real", 0), ("real", 1), ("normal", 0)]
