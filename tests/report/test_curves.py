import json

import pytest

from dhdiff_ray.report.curves import POINTS, loss_curves
from dhdiff_ray.run.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of(str(tmp_path), "run")


def tell(folder, category, steps, loss=lambda step: 1.0, **parts):
    lines = [json.dumps({"step": s, "loss": loss(s), **parts, "time": 0}) for s in steps]
    folder.write_bytes(f"metrics/{category}.jsonl", "\n".join(lines).encode())


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_one_curve_per_category_inside_its_box(folder):
    tell(folder, "b", range(1, 1001), lambda s: 2 / s)
    tell(folder, "a", range(1, 11))
    curves = loss_curves(folder)
    assert [curve.category for curve in curves] == ["a", "b"]
    assert [curve.steps for curve in curves] == [10, 1000]
    for curve in curves:
        for x, y in points(curve.raw) + points(curve.means["smooth"]):
            assert curve.left <= x <= curve.right
            assert curve.top <= y <= curve.bottom
    assert len(points(curves[1].raw)) == POINTS


def test_a_falling_loss_falls_on_the_page(folder):
    tell(folder, "a", range(1, 101), lambda s: 100 - s)
    (curve,) = loss_curves(folder)
    heights = [y for _, y in points(curve.means["smooth"])]
    assert heights == sorted(heights)
    assert curve.last["smooth"] == pytest.approx(2)


def test_each_domain_has_a_line_where_its_loss_was_kept(folder):
    tell(folder, "a", range(1, 21), loss_image=0.25, loss_annotation=0.75)
    tell(folder, "b", range(1, 21))
    a, b = loss_curves(folder)
    assert a.last == {"smooth": 1, "image": 0.25, "annotation": 0.75}
    assert list(b.means) == ["smooth"]


def test_after_a_restart_the_later_word_counts(folder):
    twice = iter([9.0] * 20 + [1.0] * 20)
    tell(folder, "a", [*range(1, 21), *range(1, 21)], lambda _: next(twice))
    (curve,) = loss_curves(folder)
    assert curve.last["smooth"] == 1


def test_lines_without_a_loss_or_cut_short_draw_nothing(folder):
    lines = ['{"step": 1}', '{"step": 2, "loss": NaN}', '{"step": 3, "lo', "[]", '{"loss": 1.0}']
    folder.write_bytes("metrics/a.jsonl", "\n".join(lines).encode())
    assert loss_curves(folder) == []


def test_ticks_are_round_and_start_at_zero(folder):
    tell(folder, "a", range(1, 1001))
    (curve,) = loss_curves(folder)
    assert [words for _, words in curve.x_ticks] == ["0", "250", "500", "750", "1,000"]
    assert curve.y_ticks[0][1] == "0"
