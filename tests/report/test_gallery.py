import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.report.gallery import SIDE, TRACED, galleries, nearest, outline, picture
from dhdiff_ray.run.run import Run


def opened(uri):
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def strokes(path):
    """Points of a path's lines, in cells of the drawing."""
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", path):
        for at in range(int(length) + 1):
            yield (int(x) + at, int(y)) if way == "h" else (int(x), int(y) + at)


@pytest.mark.parametrize("side", [64, 1024])
def test_the_outline_lies_just_outside_the_mask_and_hides_nothing_of_the_defect(side):
    mask = np.zeros((side, side), np.uint8)
    mask[20 * side // 64 : 30 * side // 64, 20 * side // 64 : 30 * side // 64] = 255
    drawn = outline(mask)
    assert drawn.side <= TRACED
    points = np.array(list(strokes(drawn.path)))
    low, high = 20 * drawn.side / 64, 30 * drawn.side / 64
    inside = ((points > low - 0.5) & (points < high + 0.5)).all(axis=1)
    assert not inside.any()
    assert low - 2 <= points.min() < low < high < points.max() <= high + 2
    assert outline(mask * 0).path == ""


def test_the_nearest_image_is_the_one_that_was_copied():
    others = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    assert nearest(np.minimum(others[3].astype(int) + 4, 255).astype(np.uint8), others) == 3


def test_small_pictures_are_exact_and_large_ones_are_bounded():
    small = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.array_equal(opened(picture(small)), small)
    assert opened(picture(np.zeros((512, 512, 3), np.uint8))).shape == (SIDE, SIDE, 3)


def test_the_first_pairs_of_each_defect_are_shown(finished_run):
    folder, config, _ = finished_run
    shown = galleries(Run(config, folder), thumbs=1)
    assert [gallery.name for gallery in shown] == ["capsule", "mesh"]
    assert all(set(gallery.defects) == set(gallery.made) and len(gallery.defects) == 3 for gallery in shown)
    assert all([thumb.name for thumb in thumbs] == ["000000"] for g in shown for thumbs in g.defects.values())
    thumb = shown[0].defects["crack"][0]
    assert thumb.base and thumb.reference and thumb.nearest
    assert thumb.real and thumb.real_outline.path and thumb.outline.path
    assert thumb.real_name.startswith("capsule/test/crack/"), "a real one of the same defect stands beside it"
    assert thumb.nearest_name.startswith("capsule/test/")
    assert not thumb.empty


def test_the_reference_is_shown_as_the_network_sees_it(finished_run):
    folder, config, _ = finished_run
    thumb = galleries(Run(config, folder), thumbs=1)[0].defects["crack"][0]
    blank = (opened(thumb.reference) == 127).all(axis=-1).mean()
    assert 0.3 < blank < 1


def test_a_category_without_pairs_has_no_defects(started_run):
    folder, config, _ = started_run
    assert all(gallery.defects == {} for gallery in galleries(Run(config, folder), thumbs=6))


def test_a_category_whose_rows_are_damaged_is_named_and_the_others_are_shown(paired):
    run = Run(paired())
    run.folder.write_bytes("pairs/mesh/metadata.jsonl", b'{"file_na')
    capsule, mesh = galleries(run, thumbs=1)
    assert capsule.defects and not capsule.damaged
    assert "pairs/mesh/metadata.jsonl is damaged" in mesh.damaged
