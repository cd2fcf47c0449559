import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from dhdiff_ray.data.registry import DatasetError, open_dataset
from dhdiff_ray.data.split import make_split


@pytest.fixture
def root(tmp_path) -> Path:
    open_dataset("mvtec").example(tmp_path)
    return tmp_path


@pytest.fixture
def magnetic_tiles() -> Path:
    """The real images: $DHDIFF_SHARED/data/mtd, or shared/data/mtd beside the checkout."""
    places = [Path(os.environ["DHDIFF_SHARED"])] if "DHDIFF_SHARED" in os.environ else []
    places += [parent / "shared" for parent in Path(__file__).parents]
    for place in places:
        if (place / "data" / "mtd").is_dir():
            return place / "data" / "mtd"
    pytest.skip("no shared/data/mtd beside the checkout; set DHDIFF_SHARED to the folder that holds data/mtd")


def scan(root, *categories):
    return open_dataset("mvtec").scan(root, categories)


def test_masks_are_matched_by_stem_with_or_without_the_ending(root):
    folder = root / "bottle" / "ground_truth" / "broken_large"
    (folder / "000_mask.png").rename(folder / "000.PNG")
    (folder / "stray_mask.png").write_bytes((folder / "001_mask.png").read_bytes())
    masks = {Path(s.image).stem: Path(s.mask or "").name for s in scan(root, "bottle") if s.defect == "broken_large"}
    assert masks == {"000": "000.PNG", "001": "001_mask.png", "002": "002_mask.png", "003": "003_mask.png"}


def test_suffixes_are_compared_without_case_and_other_files_ignored(root):
    folder = root / "bottle" / "train" / "good"
    (folder / "000.png").rename(folder / "000.JPG")
    (folder / "Thumbs.db").write_text("x")
    (folder / "._001.png").write_text("x")
    assert [Path(s.image).name for s in scan(root, "bottle") if s.subset == "train"] == [
        "000.JPG",
        "001.png",
        "002.png",
        "003.png",
    ]


def test_an_anomaly_without_mask_is_named_with_the_mask_expected(root):
    (root / "bottle" / "ground_truth" / "broken_small" / "002_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"test/broken_small/002\.png .*ground_truth/broken_small/002_mask\.png"):
        scan(root)
    assert scan(root, "grid")


def test_two_masks_of_one_image_are_refused(root):
    folder = root / "bottle" / "ground_truth" / "broken_small"
    shutil.copy(folder / "002_mask.png", folder / "002.png")
    with pytest.raises(DatasetError, match="both masks of 002"):
        scan(root)


def test_a_dataset_without_masks_says_where_they_belong(root):
    shutil.rmtree(root / "grid" / "ground_truth")
    with pytest.raises(DatasetError, match=r"no folder .*ground_truth/bent; pairs are learnt from masks"):
        scan(root)


def test_the_folder_of_one_category_given_as_root_points_one_up(root):
    with pytest.raises(DatasetError, match=f"try --root {root}$"):
        scan(root / "bottle")


def test_the_manifest_groups_images_by_their_path_below_the_root(root):
    lines = [f"{sample.key},{index // 2}" for index, sample in enumerate(scan(root))]
    (root / "manifest.csv").write_text("\n".join(["file,group", *lines]) + "\n")
    assert [sample.group for sample in scan(root)][:4] == ["0", "0", "1", "1"]
    (root / "manifest.csv").write_text("\n".join(["file,group", *lines[1:]]) + "\n")
    with pytest.raises(DatasetError, match="no row for bottle"):
        scan(root)
    (root / "manifest.csv").write_text("file,group\ntest/good/000.png,1\n")
    with pytest.raises(DatasetError, match="none of the categories"):
        scan(root)
    (root / "manifest.csv").write_text("file,source\na,b\n")
    assert {sample.group for sample in scan(root)} == {None}


def test_real_magnetic_tiles_scan_with_their_groups(magnetic_tiles):
    samples = scan(magnetic_tiles)
    counts = Counter((sample.subset, sample.defect) for sample in samples)
    assert (counts["train", "good"], counts["test", "good"]) == (240, 80)
    assert sum(not sample.is_good for sample in samples) == 314
    assert all(sample.group for sample in samples)


def test_no_real_tile_lies_on_both_sides_of_the_split(magnetic_tiles):
    for seed in range(3):
        split = make_split(scan(magnetic_tiles), fraction=0.5, seed=seed, root=magnetic_tiles)
        assert not {s.group for s in split.train} & {s.group for s in split.test}
        for _, defect in split.defects():
            train, test = (sum(s.defect == defect for s in side) for side in (split.train, split.test))
            assert abs(train / (train + test) - 0.5) < 0.08
