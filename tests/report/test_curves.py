import pytest

from dhdiff_ray.report.curves import POINTS, loss_curves


def told(category, steps, loss=lambda step: 1.0):
    return [{"verb": "train", "category": category, "done": s, "loss": loss(s)} for s in steps]


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_one_curve_per_category_inside_its_box():
    curves = loss_curves(told("b", range(1, 1001), lambda s: 2 / s) + told("a", range(1, 11)))
    assert [curve.category for curve in curves] == ["a", "b"]
    assert [curve.steps for curve in curves] == [10, 1000]
    for curve in curves:
        for x, y in points(curve.raw) + points(curve.smooth):
            assert curve.left <= x <= curve.right
            assert curve.top <= y <= curve.bottom
    assert len(points(curves[1].raw)) == POINTS


def test_a_falling_loss_falls_on_the_page():
    (curve,) = loss_curves(told("a", range(1, 101), lambda s: 100 - s))
    heights = [y for _, y in points(curve.smooth)]
    assert heights == sorted(heights)
    assert curve.last == pytest.approx(2)


def test_after_a_restart_the_later_word_counts():
    (curve,) = loss_curves(told("a", range(1, 21), lambda _: 9.0) + told("a", range(1, 21), lambda _: 1.0))
    assert curve.last == 1


def test_events_without_a_loss_and_other_verbs_draw_nothing():
    events = [
        {"verb": "train", "category": "a", "done": 1},
        {"verb": "train", "category": "a", "done": 2, "loss": float("nan")},
        {"verb": "detect", "category": "a", "done": 3, "loss": 1.0},
        {"event": "start"},
    ]
    assert loss_curves(events) == []


def test_ticks_are_round_and_start_at_zero():
    (curve,) = loss_curves(told("a", range(1, 1001)))
    assert [words for _, words in curve.x_ticks] == ["0", "250", "500", "750", "1,000"]
    assert curve.y_ticks[0][1] == "0"
