import pytest

from dhdiff_ray.detector.results import together
from dhdiff_ray.report.summary import masks_sentence, pairs_sentence


def row(iou, real=None, n=10):
    return {"iou": iou, "n": n, "nonempty": 1.0, **({"reference": {"iou": real}} if real else {})}


@pytest.mark.parametrize(
    ("iou", "real", "lead"),
    [
        (0.5, 0.6, "Masks lie on their defects"),
        (0.3, 0.5, "Masks lie on their defects in part"),
        (0.1, 0.5, "Masks often miss their defects"),
        (0.9, None, "Whether masks lie on their defects cannot be judged yet"),
    ],
)
def test_agreement_is_judged_beside_that_of_real_masks(iou, real, lead):
    assert masks_sentence({"a": row(iou, real)}).lead == lead


def test_categories_count_by_their_pairs():
    told = masks_sentence({"a": row(0.2, 0.5, n=30), "b": row(0.6, 0.5, n=10)}).told
    assert "made masks 0.30, with held-out real masks 0.50" in told
    assert "100% of 40 masks are not empty" in told


def test_what_was_not_measured_has_no_sentence():
    assert masks_sentence({}) is None
    assert masks_sentence({"a": {"iou": None, "n": 0}}) is None
    assert pairs_sentence({}) is None


def test_the_judgement_stands_before_its_figures():
    kinds = {kind: {"by_seed": [{"pixel_ap": ap}, {"pixel_ap": ap + 0.01}]} for kind, ap in
             (("real", 0.5), ("real_synthetic", 0.7))}  # fmt: skip
    one = pairs_sentence({"a: b": kinds, "conditions": {}})
    assert one.lead == "The pairs help"
    assert one.told.startswith("a: b: The pairs help: with the pairs")
    assert pairs_sentence({"a": kinds, "b": kinds}).told.startswith("2 categories: The pairs help")


def test_where_the_sum_was_not_trained_pairs_alone_are_told_first():
    alone = together({("synthetic", 0): {"pixel_ap": 0.45}, ("real", 0): {"pixel_ap": 0.5}})
    one = pairs_sentence({"a": alone, "b": alone})
    assert one.lead == "Made pairs alone give a detector 90% of the pixel AP that real ones give"
    assert "add real_synthetic to detect.baselines" in one.told
    assert pairs_sentence({"a": {"synthetic": {"pixel_ap": 0.45}}}).lead.startswith("Whether the pairs help")
