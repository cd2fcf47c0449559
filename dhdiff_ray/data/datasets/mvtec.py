"""MVTec AD, and any folder laid out like it.

Bergmann et al., "MVTec AD: A comprehensive real-world dataset for unsupervised anomaly detection", CVPR 2019;
used in section IV. Images are CC BY-NC-SA 4.0. The layout::

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

What we decided: a mask belongs to an image by its stem (``000_mask`` or ``000``), never by its place in a sorted list;
suffixes are compared without case. A ``manifest.csv`` at the root with the columns ``file`` and ``group`` tells which
images show the same physical part. The single-channel images of grid, screw and zipper become RGB when they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dhdiff_ray.data.encode import save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.layout import folders_in, images_in, masks_by_stem, read_table
from dhdiff_ray.data.registry import Dataset, DatasetError, Remark, choose_categories, dataset
from dhdiff_ray.records import GOOD, Sample

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
        names = [p.name for p in folders_in(root, root) if (p / "train" / GOOD).is_dir()]
        if not names:
            inside = (root / "train" / GOOD).is_dir()
            remedy = f"--root {root.parent}" if inside else "--root with the folder that holds the categories"
            raise DatasetError(f"{root} has no folder with <category>/train/{GOOD}; try {remedy}")
        return names

    def scan(self, root: Path, categories: Sequence[str] = ()) -> list[Sample]:
        """All images of the chosen categories; every anomaly comes with its mask."""
        root = root.absolute()
        there = self.categories(root)
        groups = _read_groups(root, there)
        samples = []
        for category in choose_categories(there, categories, root):
            of_category = list(self.scan_category(root, category))
            if not of_category:
                folder = root / category
                raise DatasetError(f"{folder} holds no images; expected PNG, JPEG, BMP or TIFF files in train/{GOOD}")
            samples += of_category
        if groups:
            samples = [replace(s, group=_group(root, groups, s)) for s in samples]
        return sorted(samples, key=lambda sample: sample.key)

    def scan_category(self, root: Path, category: str) -> Iterator[Sample]:
        """The samples of one category, in any order; their group is filled in later."""
        for subset in ("train", "validation", "test"):
            for folder in folders_in(root / category / subset, root):
                images = images_in(folder, root)
                if not images:
                    self.reading.tell(Remark.on(folder, f"{folder} holds no images"))
                elif folder.name == GOOD:
                    for image in images:
                        yield Sample(image.relative_to(root).as_posix(), category, GOOD, subset, str(image))
                else:
                    yield from self.anomalies(root, category, subset, images)

    def anomalies(self, root: Path, category: str, subset: str, images: Sequence[Path]) -> Iterator[Sample]:
        """Samples of the images of one defect's folder, each with its mask."""
        defect = images[0].parent.name
        masks = masks_by_stem(root / category / "ground_truth" / defect, images, root)
        for image in images:
            mask = masks.get(image.stem)
            if mask is None:
                wanted = root / category / "ground_truth" / defect / f"{image.stem}_mask.png"
                self.leave_out(f"{image} shows a defect but has no mask; expected {wanted}", image)
                continue
            yield Sample(image.relative_to(root).as_posix(), category, defect, subset, str(image), str(mask))

    def example(self, root: Path, seed: int = 0) -> None:
        """Two categories of 24 x 24 noise; ``grid`` is single-channel, as in the archive."""
        rng = np.random.default_rng(seed)
        for category, defects, channels in (("bottle", ("broken_large", "broken_small"), 3), ("grid", ("bent",), 1)):
            draw_tree(root / category, defects, rng, channels)
            (root / category / "license.txt").write_text("drawn images, free to use\n")


def draw_tree(folder: Path, defects: Sequence[str], rng: np.random.Generator, channels: int = 3) -> None:
    """One category of a few drawn images in this layout, for examples."""
    for subset, count in (("train", 4), ("test", 2)):
        for index in range(count):
            save_png(folder / subset / GOOD / f"{index:03d}.png", noise(rng, channels=channels))
    for defect in defects:
        for index in range(4):
            image, mask = spoiled(rng, channels=channels)
            save_png(folder / "test" / defect / f"{index:03d}.png", image)
            save_png(folder / "ground_truth" / defect / f"{index:03d}_mask.png", mask)


def _group(root: Path, groups: dict[str, str], sample: Sample) -> str | None:
    key = Path(sample.image).relative_to(root).as_posix()
    if key not in groups:
        raise DatasetError(f"{root / MANIFEST} has a group column but no row for {key}; add one")
    return groups[key] or None


def _read_groups(root: Path, categories: list[str]) -> dict[str, str]:
    """Key -> group from the manifest, if there is one with a ``group`` column.

    ``file`` is relative to the root; where the root has one category, its folder may be left out.
    """
    path = root / MANIFEST
    if not path.is_file():
        return {}
    rows = read_table(path)
    if not rows or "group" not in rows[0]:
        return {}
    if "file" not in rows[0]:
        raise DatasetError(f"{path} has a column 'group' but no column 'file'; expected both")
    groups: dict[str, str] = {}
    for row in rows:
        file, group = row["file"], row["group"]
        if file.split("/", 1)[0] in categories:
            groups[file] = group
        elif len(categories) == 1:
            groups[f"{categories[0]}/{file}"] = group
        else:
            raise DatasetError(f"{path} names {file!r}, which lies in none of the categories {', '.join(categories)}")
    return groups
