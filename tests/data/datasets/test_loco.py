from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.data.datasets.loco import saturation_area
from dhdiff_ray.data.images import full_mask, header, whole_images
from dhdiff_ray.data.registry import DatasetError, Reading, open_dataset
from dhdiff_ray.data.split import make_split

KIND = "breakfast_box/ground_truth/logical_anomalies"


@pytest.fixture
def root(tmp_path):
    open_dataset("loco").example(tmp_path)
    return tmp_path


def scan(root, **reading):
    return open_dataset("loco", Reading(tell=pytest.fail, **reading)).scan(root)


def test_defects_are_named_by_the_pixel_values_of_their_masks(root):
    found = Counter(s.defect for s in scan(root) if not s.is_good)
    assert found == {"missing_almonds": 3, "overflow": 3, "combined": 2, "contamination": 3}


def test_several_masks_of_one_image_are_one(root):
    sample = next(s for s in scan(root) if s.defect == "overflow")
    assert len(sample.masks) == 2
    union = np.zeros(header(sample.image)[0][::-1], bool)
    for mask in sample.masks:
        union |= np.asarray(Image.open(mask)) > 0
    assert np.array_equal(full_mask(sample), union)
    assert union.shape == (20, 32)


def test_each_defect_of_an_image_has_its_own_masks(root):
    samples = [s for s in scan(root, several_defects="each") if "006" in s.key]
    assert {s.defect: [m[-7:] for m in s.masks] for s in samples} == {
        "missing_almonds": ["000.png"],
        "overflow": ["001.png"],
    }


def test_the_validation_side_trains_and_both_samples_of_an_image_stay_on_one_side(root):
    for seed in range(8):
        split = make_split(scan(root, several_defects="each"), fraction=0.5, seed=seed, root=root)
        assert {s.subset for s in split.train if s.is_good} == {"train", "validation"}
        assert not {s.image for s in split.train} & {s.image for s in split.test}


def test_a_mask_of_two_defects_belongs_to_both(root):
    mask = np.zeros((20, 32), np.uint8)
    mask[2:5, 2:5], mask[10:15, 10:15] = 255, 241
    Image.fromarray(mask).save(root / KIND / "000" / "000.png")
    assert next(s for s in scan(root) if "logical_anomalies/000" in s.key).defect == "combined"
    each = [s for s in scan(root, several_defects="each") if "logical_anomalies/000" in s.key]
    assert {s.defect: int(full_mask(s).sum()) for s in each} == {"missing_almonds": 9, "overflow": 25}


def test_the_saturation_area_is_a_share_or_pixels_but_never_more_than_the_defect():
    assert saturation_area(101, 0.5, relative=True) == 50
    assert saturation_area(101, 40, relative=False) == 40
    assert saturation_area(30, 40, relative=False) == 30


def test_every_mask_file_is_an_instance_with_its_own_saturation_area(root):
    for sample in scan(root):
        found = open_dataset("loco").instances(root, sample)
        areas = [int((np.asarray(Image.open(path)) > 0).sum()) for path in sample.masks]
        assert [int(one.pixels.sum()) for one in found] == areas
        if sample.defect == "missing_almonds":
            assert [one.saturation for one in found] == [area // 2 for area in areas]
        if sample.defect == "overflow":
            assert [one.saturation for one in found] == [min(area, 6) for area in areas]
        assert bool(found) != sample.is_good


def test_an_image_listed_once_per_defect_is_one_image_with_all_its_instances(root):
    together, apart = scan(root), scan(root, several_defects="each")
    whole = whole_images(apart)
    assert len(apart) == len(whole) + 2
    assert [(s.key, s.defect, s.masks) for s in whole] == [(s.key, s.defect, s.masks) for s in together]
    loader = open_dataset("loco")
    for one, other in zip(whole, together, strict=True):
        assert np.array_equal(full_mask(one), full_mask(other))
        assert len(loader.instances(root, one)) == len(loader.instances(root, other))


def test_a_defect_without_saturation_area_is_named(root):
    sample = next(s for s in scan(root) if s.defect == "overflow")
    file = root / "breakfast_box" / "defects_config.json"
    file.write_text(file.read_text().replace('"pixel_value": 241', '"pixel_value": 240'))
    with pytest.raises(DatasetError, match=r"pixel value 241, for which defects_config\.json"):
        open_dataset("loco").instances(root, sample)
    file.write_text('[{"pixel_value": 241}]')
    with pytest.raises(DatasetError, match="expected a list of pixel_value, saturation_threshold"):
        open_dataset("loco").instances(root, sample)
