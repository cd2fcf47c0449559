import json
from collections import Counter

import numpy as np
import pytest

from dhdiff_ray.data.encode import save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.registry import DatasetError, Reading, open_dataset

IMAGES = "{category}/**/{defect}/{stem}.png"
MASKS = "{category}/masks/{defect}_{stem}.png"


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for category in ("cap", "lid"):
        for index in range(2):
            save_png(tmp_path / category / "line 1" / "ok" / f"{index}.png", noise(rng))
            image, mask = spoiled(rng)
            save_png(tmp_path / category / "line 2" / "dent" / f"{index}.png", image)
            save_png(tmp_path / category / "masks" / f"dent_{index}.png", mask)
    return tmp_path


def scan(root, **reading):
    return open_dataset("folder", Reading(tell=pytest.fail, **reading)).scan(root)


def test_patterns_name_category_and_defect_and_find_the_mask_by_the_same_names(tree):
    samples = scan(tree, images=IMAGES, masks=MASKS)
    assert Counter((s.category, s.defect) for s in samples) == dict.fromkeys(
        [("cap", "dent"), ("cap", "good"), ("lid", "dent"), ("lid", "good")], 2
    )
    assert {s.key: s.mask and s.mask.removeprefix(f"{tree}/") for s in samples if s.key.startswith("lid")} == {
        "lid/line 1/ok/0.png": None,
        "lid/line 1/ok/1.png": None,
        "lid/line 2/dent/0.png": "lid/masks/dent_0.png",
        "lid/line 2/dent/1.png": "lid/masks/dent_1.png",
    }


def test_where_nobody_names_the_defect_a_mask_makes_one(tree):
    samples = scan(tree / "cap", images="**/*/{stem}.png", masks="masks/dent_{stem}.png")
    assert {(s.category, s.defect) for s in samples} == {("cap", "defect")}


def test_wrong_patterns_are_told_with_what_is_possible(tree):
    for reading, words in (
        ({"images": "{kategory}/*.png"}, "did you mean 'category'"),
        ({"images": "*/*.jpg"}, "gives no images"),
        ({"images": "**/*.png", "masks": "**/{stem}.png"}, "masks of the same image"),
        ({"images": "**/ok/*.png", "masks": "masks/{group}.png"}, "use the same names"),
        ({}, "write one with the columns image, mask"),
    ):
        with pytest.raises(DatasetError, match=words):
            scan(tree, **reading)


def test_a_manifest_may_be_json_lines_and_lie_elsewhere(tree):
    rows = [
        {"image": "cap/line 1/ok/0.png", "split": "train"},
        {"image": "cap/line 2/dent/1.png", "mask": "cap/masks/dent_1.png", "defect": "dent", "group": 7},
    ]
    (tree / "tables").mkdir()
    (tree / "tables" / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    samples = scan(tree, manifest="tables/mine.jsonl")
    assert [(s.defect, s.subset, s.group) for s in samples] == [("good", "train", None), ("dent", "", "7")]
    with pytest.raises(DatasetError, match="outside"):
        scan(tree, manifest="../mine.csv")


def test_a_normal_image_with_a_mask_is_a_contradiction_that_is_named(tree):
    (tree / "manifest.csv").write_text("image,mask,defect\ncap/line 2/dent/1.png,cap/masks/dent_1.png,ok\n")
    with pytest.raises(DatasetError, match=r"line 2: .*1\.png is normal but has the mask"):
        scan(tree)
