import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.data.datasets.mvtec import draw_tree
from dhdiff_ray.data.datasets.visa import CLASSES
from dhdiff_ray.data.encode import save_jpeg
from dhdiff_ray.data.examples import noise
from dhdiff_ray.data.images import full_mask
from dhdiff_ray.data.registry import DatasetError, Reading, open_dataset
from dhdiff_ray.data.split import make_split


@pytest.fixture
def root(tmp_path):
    open_dataset("visa").example(tmp_path)
    return tmp_path


def scan(root, **reading):
    return open_dataset("visa", Reading(**{"tell": pytest.fail, **reading})).scan(root)


def change(root, old, new, file="pcb1/image_anno.csv"):
    table = root / file
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))


def draw_converted(root, seed=0):
    """A tiny converted tree: images are JPEG, masks have the image's stem without ``_mask``."""
    rng = np.random.default_rng(seed)
    draw_tree(root / "candle", ("bad",), rng)
    for mask in sorted((root / "candle" / "ground_truth" / "bad").iterdir()):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    for image in sorted((root / "candle").glob("*/*/*.png")):
        if "ground_truth" not in image.parts:
            image.unlink()
            save_jpeg(image.with_suffix(".JPG"), noise(rng))


def test_defects_are_the_labels_and_sides_those_of_the_official_split(root):
    found = Counter((s.defect, s.subset) for s in scan(root))
    assert found == {
        ("good", "train"): 3,
        ("good", "test"): 2,
        ("bent", "test"): 3,
        ("scratch", "test"): 2,
        ("combined", "test"): 2,
    }


def test_each_defect_of_an_image_has_the_pixels_of_its_class_id_alone(root):
    samples = [s for s in scan(root, several_defects="each") if "005" in s.key and "Anomaly" in s.key]
    assert [s.defect for s in samples] == ["bent", "scratch"]
    ids = np.asarray(Image.open(samples[0].mask))
    for sample, value in zip(samples, (1, 3), strict=True):
        assert np.array_equal(full_mask(sample), ids == value)
    assert not (full_mask(samples[0]) & full_mask(samples[1])).any()


def test_a_class_id_that_the_label_does_not_name_is_told(root):
    change(root, '"bent,scratch"', '"bent,melt"')
    with pytest.raises(DatasetError, match=r"005\.png holds the class ids \(1, 3\), none of which is 'melt'"):
        scan(root, several_defects="each")


def test_labels_are_compared_without_case_and_unknown_ones_told(root):
    told = []
    change(root, "001.JPG,bent", "001.JPG,Bent")
    assert Counter(s.defect for s in scan(root))["bent"] == 3
    change(root, "002.JPG,bent", "002.JPG,Chewed by a Dog")
    found = Counter(s.defect for s in scan(root, tell=told.append))
    assert (found["bent"], found["chewed_by_a_dog"]) == (2, 1)
    assert "chewed_by_a_dog" in told[0]


def test_another_official_split_decides_the_sides_with_given(root):
    shutil.copy(root / "split_csv/1cls.csv", root / "split_csv/2cls.csv")
    for name in ("000", "003", "005"):
        change(root, f"test,anomaly,pcb1/Data/Images/Anomaly/{name}", f"train,anomaly,pcb1/Data/Images/Anomaly/{name}",
               "split_csv/2cls.csv")  # fmt: skip
    split = make_split(scan(root, manifest="split_csv/2cls.csv"), fraction=0.5, seed=0, root=root, mode="given")
    assert [s.key[-7:] for s in split.train if not s.is_good] == ["000.JPG", "003.JPG", "005.JPG"]


def test_the_converted_tree_is_read_and_says_that_names_are_lost(tmp_path):
    draw_converted(tmp_path / "VisA_pytorch" / "1cls")
    told = []
    samples = scan(tmp_path / "VisA_pytorch" / "1cls", tell=told.append)
    assert Counter(s.defect for s in samples) == {"good": 6, "bad": 4}
    assert all(s.image.endswith(".JPG") and "_mask" not in (s.mask or "") for s in samples)
    assert "names of the defects are lost" in told[0]
    with pytest.raises(DatasetError, match=r"try --root .*1cls"):
        scan(tmp_path / "VisA_pytorch")


def test_the_table_of_class_ids_has_as_many_names_as_published():
    counts = {name: len(words.split("|")) for name, words in CLASSES.items()}
    assert list(counts.values()) == [8, 5, 9, 6, 8, 7, 7, 4, 4, 4, 7, 9]
