"""MVTec AD, and any folder laid out like it.

Bergmann et al., "MVTec AD: A comprehensive real-world dataset for unsupervised anomaly detection", CVPR 2019;
used in section IV. Images are CC BY-NC-SA 4.0. The layout::

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

What we decided: a mask belongs to an image by its stem (``000_mask`` or ``000``), never by its place in a sorted list;
suffixes are compared without case. A ``manifest.csv`` at the root with the columns ``file`` and ``group`` tells which
images show the same physical part.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dhdiff_ray.data.registry import Dataset, DatasetError, choose_categories, dataset
from dhdiff_ray.data.writer import save_png
from dhdiff_ray.records import GOOD, Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
MANIFEST = "manifest.csv"


@dataset("mvtec")
class MVTec(Dataset):
    """The MVTec AD tree."""

    licence = "CC BY-NC-SA 4.0"
    source = "https://www.mvtec.com/company/research/datasets/mvtec-ad"

    def categories(self, root: Path) -> list[str]:
        """Folders of ``root`` that have ``train/good``."""
        if not root.is_dir():
            raise DatasetError(f"no dataset folder {root}; give the folder that holds the categories with --root")
        found = sorted(p.name for p in root.iterdir() if (p / "train" / GOOD).is_dir())
        if not found:
            inside = (root / "train" / GOOD).is_dir()
            remedy = f"--root {root.parent}" if inside else "--root with the folder that holds the categories"
            raise DatasetError(f"{root} has no folder with <category>/train/{GOOD}; try {remedy}")
        return found

    def scan(self, root: Path, categories: Sequence[str] = ()) -> list[Sample]:
        """All images of the chosen categories; every anomaly comes with its mask."""
        root = root.absolute()
        found = self.categories(root)
        groups = _read_groups(root, found)
        samples = []
        for category in choose_categories(found, categories, root):
            samples += _scan_category(root, category, groups)
        return sorted(samples, key=lambda sample: sample.key)

    def example(self, root: Path, seed: int = 0) -> None:
        """Two categories of 24 x 24 noise; ``grid`` is single-channel, as in the archive."""
        rng = np.random.default_rng(seed)
        for category, defects, shape in (("bottle", ("broken_large", "broken_small"), (3,)), ("grid", ("bent",), ())):
            folder = root / category
            for subset, count in (("train", 4), ("test", 2)):
                for index in range(count):
                    save_png(folder / subset / GOOD / f"{index:03d}.png", _noise(rng, shape))
            for defect in defects:
                for index in range(4):
                    mask = np.zeros((24, 24), dtype=np.uint8)
                    top, left = rng.integers(2, 14, size=2)
                    mask[top : top + 6, left : left + 8] = 255
                    image = _noise(rng, shape)
                    image[mask > 0] = 20
                    save_png(folder / "test" / defect / f"{index:03d}.png", image)
                    save_png(folder / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
            (folder / "license.txt").write_text("drawn images, free to use\n")


def images_in(folder: Path) -> list[Path]:
    """Image files directly in ``folder``, sorted by name; anything else is ignored."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _scan_category(root: Path, category: str, groups: dict[str, str]) -> list[Sample]:
    folder = root / category
    samples = []
    for subset in ("train", "validation", "test"):
        if not (folder / subset).is_dir():
            continue
        for defect_folder in sorted(p for p in (folder / subset).iterdir() if p.is_dir()):
            defect = defect_folder.name
            images = images_in(defect_folder)
            masks = {} if defect == GOOD else _masks_by_stem(folder / "ground_truth" / defect, images)
            for image in images:
                key = image.relative_to(root).as_posix()
                mask = masks.get(image.stem)
                if groups and key not in groups:
                    raise DatasetError(f"{root / MANIFEST} has a group column but no row for {key}; add one")
                if defect != GOOD and mask is None:
                    wanted = folder / "ground_truth" / defect / f"{image.stem}_mask.png"
                    raise DatasetError(f"{image} shows a defect but has no mask; expected {wanted}")
                samples.append(
                    Sample(key, category, defect, subset, str(image), mask and str(mask), groups.get(key) or None)
                )
    if not samples:
        raise DatasetError(f"{folder} holds no images; expected PNG, JPEG, BMP or TIFF files in train/{GOOD}")
    return samples


def _masks_by_stem(folder: Path, images: list[Path]) -> dict[str, Path]:
    """Stem of the image -> mask file; a mask is named like its image, with or without ``_mask``."""
    if images and not folder.is_dir():
        raise DatasetError(
            f"{images[0].parent} has {len(images)} anomalies but there is no folder {folder}; pairs are learnt from "
            "masks, so put one mask per image there, named like the image with _mask before the suffix"
        )
    found: dict[str, Path] = {}
    for path in images_in(folder):
        stem = path.stem.removesuffix("_mask")
        if stem in found:
            raise DatasetError(f"{found[stem]} and {path} are both masks of {stem}; keep one")
        found[stem] = path
    return found


def _read_groups(root: Path, categories: list[str]) -> dict[str, str]:
    """Key -> group from the manifest, if there is one with a ``group`` column.

    ``file`` is relative to the root; where the root has one category, its folder may be left out.
    """
    path = root / MANIFEST
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        if "group" not in columns:
            return {}
        if "file" not in columns:
            raise DatasetError(f"{path} has a column 'group' but no column 'file'; expected both")
        rows = {row["file"]: row["group"] or "" for row in reader}
    groups: dict[str, str] = {}
    for file, group in rows.items():
        if file.split("/", 1)[0] in categories:
            groups[file] = group
        elif len(categories) == 1:
            groups[f"{categories[0]}/{file}"] = group
        else:
            raise DatasetError(f"{path} names {file!r}, which lies in none of the categories {', '.join(categories)}")
    return groups


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(90, 200, size=(24, 24, *shape), dtype=np.uint8)
