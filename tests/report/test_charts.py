import re

import numpy as np
import pytest

from dhdiff_ray.report.charts import NAMES, WIDTH, ap_charts, bars_svg, mask_charts, place_chart, size_chart
from dhdiff_ray.report.shapes import Shapes, mask_shapes
from dhdiff_ray.run.run import Run


def numbers(svg, name):
    return [float(value) for value in re.findall(rf' {name}="([\d.]+)"', svg)]


def masks(*areas, x=0.5, y=0.5):
    return np.array([[area, x, y, 1, 1] for area in areas]).reshape(-1, 5)


def test_a_bar_is_as_long_as_its_figure_and_the_spread_is_told():
    svg = bars_svg("mesh", [("real pairs", 0.5, None), ("made pairs", 1.0, 0.1)])
    short, long = (float(width) for width in re.findall(r'<rect class="bar[^>]* width="([\d.]+)"', svg))
    assert long == pytest.approx(2 * short)
    assert 'aria-label="Pixel AP of mesh: real pairs 0.500; made pairs 1.000 ± 0.100"' in svg
    assert svg.count('class="whisker"') == 3
    assert all(NAMES - 1 <= x <= WIDTH for x in numbers(svg, "x1") + numbers(svg, "x2"))


def test_kinds_that_were_not_trained_have_no_bar_and_words_are_escaped():
    row = {"real": {"pixel_ap": 0.5}, "synthetic": {"pixel_ap": None}}
    (chart,) = ap_charts({"a<b": row, "conditions": {}})
    assert chart.svg.count("<rect") == 1
    assert "a&lt;b" in chart.svg and "a<b" not in chart.svg
    assert ap_charts({}) == []


def test_larger_masks_stand_further_right():
    def middle(areas):
        (path,) = re.findall(r'class="steps made" points="([^"]+)"', size_chart(Shapes("a", masks(0.001), areas)).svg)
        points = [tuple(map(float, pair.split(","))) for pair in path.split()]
        return min(points, key=lambda point: point[1])[0]

    assert middle(masks(0.3, 0.3)) > middle(masks(0.01, 0.01))


def test_a_ring_for_each_real_mask_and_a_dot_for_each_made_one_at_its_place():
    svg = place_chart(Shapes("a", masks(0.1, 0.1, x=0), masks(0.1, x=1))).svg
    assert svg.count("dot real") == 2
    assert svg.count("dot made") == 1
    made, *real = numbers(svg, "cx")
    assert made > max(real)


def test_the_masks_of_a_run_are_read_on_both_sides(finished_run):
    folder, config, _ = finished_run
    shapes = mask_shapes(Run(config, folder))
    assert [one.category for one in shapes] == ["capsule", "mesh"]
    assert all(len(one.made) and len(one.real) for one in shapes)
    assert len(mask_charts(shapes)) == 4


def test_without_real_images_the_made_masks_are_shown_alone(finished_run):
    folder, config, _ = finished_run
    split = folder.read_json("split.json")
    folder.write_json("split.json", {**split, "root": "/nowhere"})
    shapes = mask_shapes(Run(config, folder))
    assert all(len(one.made) and not len(one.real) for one in shapes)
    assert len(mask_charts(shapes)) == 4


def test_a_run_without_pairs_has_no_shapes(started_run):
    folder, config, _ = started_run
    assert mask_shapes(Run(config, folder)) == []
