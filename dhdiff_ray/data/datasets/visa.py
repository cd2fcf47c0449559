"""VisA, as its archive lies (defect names kept) or as ``spot-diff`` converts it (defect names lost).

Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation", ECCV 2022.
Images are CC BY 4.0. The archive::

    <root>/<object>/Data/Images/{Normal,Anomaly}/000.JPG
    <root>/<object>/Data/Masks/Anomaly/000.png     # pixel value = class id; looks black in a viewer
    <root>/<object>/image_anno.csv                 # image,label,mask; several defects are separated by commas
    <root>/split_csv/{1cls,2cls_highshot,2cls_fewshot}.csv

What we decided: the label names the defect, in small letters with underscores; which side an image is on comes from
``1cls.csv`` unless ``data.manifest`` names another; ``several_defects = each`` cuts masks by class id, with the table
below. In the converted tree every defect is ``bad``: the loader says so, and nothing can bring the names back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dhdiff_ray.data.datasets.mvtec import MVTec
from dhdiff_ray.data.encode import save_jpeg, save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.images import ImageError, mask_values
from dhdiff_ray.data.layout import COMBINED, check_name, defect_of, folders_in, images_in, inside, read_table, subset_of
from dhdiff_ray.data.registry import DatasetError, choose_categories, dataset
from dhdiff_ray.records import GOOD, Sample

ANNOTATIONS = "image_anno.csv"
SPLIT = "split_csv/1cls.csv"
_PCB = "Bent|Melt|Scratch|Missing"
CLASSES = {
    "candle": "Chunk Of Wax Missing|Damaged Corner of Packaging|weird candle wick|Different Colour Spot|"
    "Extra Wax in Candle|Foreign Particals on Candle|Wax Melded out of the candle|Other",
    "capsules": "Bubble|Discolor|Scratch|Leak|Misshape",
    "cashew": "Burnt|Corner or Edge Breakage|Different Colour Spot|Middle Breakage|Small Holes|Small Scratches|"
    "Stuck Together|Same Colour Spot|Other",
    "chewinggum": "Chunk of gum missing|Corner Missing|Scratches|Similar Colour Spot|Small Cracks|Other",
    "fryum": "Burnt|Corner or Edge Breakage|Different Colour Spot|Fryum Stuck Together|Middle Breakage|"
    "Similar Colour Spot|Small Scratches|Other",
    "macaroni1": "Chip Around Edge And Corner|Different Colour Spot|Middle Breakage|Similar Colour Spot|Small Cracks|"
    "Small Scratches|Other",
    "macaroni2": "Breakage down the middle|Color spot similar to the Object|Different Color spot|"
    "Small chip around edge|Small Cracks|Small Scratches|Other",
    "pcb1": _PCB,
    "pcb2": _PCB,
    "pcb3": _PCB,
    "pcb4": "Burnt|Scratch|Missing|Damage|Extra|Wrong Place|Dirt",
    "pipe_fryum": "Burnt|Corner And Edge Breakage|Different Colour Spot|Middle Breakage|Similar Colour Spot|"
    "Small Scratches|Stuck Together|Small Cracks|Other",
}
"""Class ids of the masks, counted from 1, per object; spelling of spot-diff's ``id2class.py``."""


@dataset("visa")
class VisA(MVTec):
    """The VisA archive, or its converted tree."""

    licence = "CC BY 4.0"
    source = "https://github.com/amazon-science/spot-diff"

    def categories(self, root: Path) -> list[str]:
        """Folders of ``root`` with the archive's ``Data/Images`` or the converted ``train/good``."""
        if not root.is_dir():
            raise DatasetError(f"no dataset folder {root}; give the folder that holds the objects with --root")
        folders = folders_in(root, root)
        raw = [p.name for p in folders if (p / "Data" / "Images").is_dir()]
        converted = [p.name for p in folders if (p / "train" / GOOD).is_dir()]
        if not raw and not converted:
            below = next((p for p in folders if any((q / "train" / GOOD).is_dir() for q in folders_in(p))), None)
            remedy = f"try --root {below}" if below else "expected <object>/Data/Images, or <object>/train/good"
            raise DatasetError(f"{root} is neither VisA's archive nor its converted tree; {remedy}")
        if converted:
            self.reading.tell(f"{root} is a converted VisA: the names of the defects are lost, all are 'bad'")
        return sorted({*raw, *converted})

    def scan(self, root: Path, categories: Sequence[str] = ()) -> list[Sample]:
        """All images of the chosen objects, named from ``image_anno.csv``."""
        root = root.absolute()
        there = self.categories(root)
        raw = [c for c in there if (root / c / "Data" / "Images").is_dir()]
        chosen = choose_categories(there, categories, root)
        samples = [s for c in chosen if c not in raw for s in self.scan_category(root, c)]
        if any(c in raw for c in chosen):
            path = root / (self.reading.manifest or SPLIT)
            sides = {row.get("image", ""): subset_of(row.get("split", ""), str(path)) for row in read_table(path)}
            samples += [s for c in chosen if c in raw for s in self._scan_raw(root, c, sides, path)]
        return sorted(samples, key=lambda sample: sample.key)

    def _scan_raw(self, root: Path, category: str, sides: dict[str, str], split: Path) -> Iterator[Sample]:
        table = root / category / ANNOTATIONS
        rows = read_table(table)
        if not rows or not {"image", "label", "mask"} <= rows[0].keys():
            raise DatasetError(f"{table} has no columns image, label, mask; take the one of the archive")
        listed = set()
        unknown: set[str] = set()
        for number, row in enumerate(rows, 2):
            where = f"{table}, line {number}"
            image = _located(root, category, row["image"], where)
            key = image.relative_to(root).as_posix()
            listed.add(key)
            if not image.is_file():
                self.leave_out(f"{where}: {image} is not there", image)
                continue
            if key not in sides:
                raise DatasetError(f"{split} has no row for {key}; take the one of the archive")
            names = [_word(part) for part in row["label"].split(",") if part.strip()]
            unknown |= {n for n in names if n != GOOD and n not in _ids(category)} if category in CLASSES else set()
            if names in ([], [GOOD]):
                yield Sample(key, category, GOOD, sides[key], str(image))
                continue
            mask = _located(root, category, row["mask"], where) if row["mask"] else None
            if mask is None or not mask.is_file():
                wanted = mask or f"{root / category}/Data/Masks/Anomaly/{image.stem}.png"
                self.leave_out(f"{image} shows a defect but has no mask; expected {wanted}", image)
                continue
            yield from self._anomaly(key, category, names, sides[key], image, mask)
        self._tell_the_rest(root, category, listed, unknown, table)

    def _anomaly(
        self, key: str, category: str, names: list[str], side: str, image: Path, mask: Path
    ) -> Iterator[Sample]:
        names = [check_name(name, str(image)) for name in dict.fromkeys(names)]
        if len(names) == 1 or self.reading.several_defects == "combined":
            yield Sample(key, category, names[0] if len(names) == 1 else COMBINED, side, str(image), str(mask))
            return
        ids = _ids(category)
        try:
            held = mask_values(str(mask))
        except ImageError as error:
            self.leave_out(str(error), mask)
            return
        for name in names:
            if ids.get(name) not in held:
                self.leave_out(f"{mask} holds the class ids {held}, none of which is {name!r} of {image}", mask)
                continue
            yield Sample(f"{key}#{name}", category, name, side, str(image), str(mask), values=(ids[name],))

    def _tell_the_rest(self, root: Path, category: str, listed: set[str], unknown: set[str], table: Path) -> None:
        if unknown:
            self.reading.tell(f"{table} names defects that VisA's table of {category} does not: {sorted(unknown)}")
        for folder in folders_in(root / category / "Data" / "Images", root):
            extra = [p for p in images_in(folder, root) if p.relative_to(root).as_posix() not in listed]
            if extra:
                self.leave_out(
                    f"{len(extra)} images of {folder}, the first is {extra[0]}, have no row in {table}", extra[0]
                )

    def example(self, root: Path, seed: int = 0) -> None:
        """``pcb1`` of the archive: JPEGs, class-id masks, quoted labels, one image with two defects."""
        rng = np.random.default_rng(seed)
        rows, sides = [], []
        folder = "pcb1/Data/Images"
        for index in range(5):
            save_jpeg(root / folder / "Normal" / f"{index:04d}.JPG", noise(rng))
            rows.append(f"{folder}/Normal/{index:04d}.JPG,normal,")
            sides.append(f"pcb1,{'train' if index < 3 else 'test'},normal,{folder}/Normal/{index:04d}.JPG,")
        shown = [("bent",)] * 3 + [("scratch",)] * 2 + [("bent", "scratch")] * 2
        for index, names in enumerate(shown):
            image, mask = spoiled(rng)
            ids = np.where(mask > 0, _ids("pcb1")[names[0]], 0).astype(np.uint8)
            if len(names) > 1:
                ids[-5:-2, -5:-2] = _ids("pcb1")[names[1]]
                image[ids > 0] = 20
            where, stem = f"{folder}/Anomaly/{index:03d}.JPG", f"pcb1/Data/Masks/Anomaly/{index:03d}.png"
            save_jpeg(root / where, image)
            save_png(root / stem, ids)
            label = ",".join(names)
            rows.append(f'{where},"{label}",{stem}' if len(names) > 1 else f"{where},{label},{stem}")
            sides.append(f"pcb1,test,anomaly,{where},{stem}")
        (root / "split_csv").mkdir(exist_ok=True)
        (root / "pcb1" / ANNOTATIONS).write_text("\n".join(["image,label,mask", *rows]) + "\n")
        (root / SPLIT).write_text("\n".join(["object,split,label,image,mask", *sides]) + "\n")


def _located(root: Path, category: str, name: str, where: str) -> Path:
    """A path of ``image_anno.csv``, which may begin at the root or at the object's folder."""
    path = inside(root, name, where)
    below = path.relative_to(root).parts[0] == category
    return path if below else inside(root, f"{category}/{name}", where)


def _word(label: str) -> str:
    """``Damaged Corner of Packaging`` -> ``damaged_corner_of_packaging``; words for normal become ``good``."""
    return defect_of("_".join(label.strip().strip('"').lower().split()), "label")


def _ids(category: str) -> dict[str, int]:
    return {_word(name): at for at, name in enumerate(CLASSES.get(category, "").split("|"), 1)}
