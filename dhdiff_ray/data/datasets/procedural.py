"""A drawn dataset in MVTec's layout, from a seed, at any resolution: products with exact masks (``data/products``).

Not in the paper: it lets the whole line run, and be measured against perfect masks, where no dataset can be had.
Every file is drawn from (seed, category, subset, defect, index) alone, so that counts can change without the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dhdiff_ray.data.datasets.mvtec import MVTec
from dhdiff_ray.data.drawing import draw
from dhdiff_ray.data.encode import save_png
from dhdiff_ray.data.products import ARTISTS, DEFECTS, DEMO
from dhdiff_ray.data.registry import DatasetError, choose_categories, dataset
from dhdiff_ray.records import GOOD

PARAMETERS = "procedural.json"


@dataset("procedural")
class Procedural(MVTec):
    """The drawn ``mesh`` (a texture) and ``capsule`` (an object)."""

    licence = "CC0-1.0"
    source = "drawn by `dhdiff-ray data make --root DIR`"

    def categories(self, root: Path) -> list[str]:
        """The drawn categories; says how to draw them when there are none."""
        if not (root / PARAMETERS).is_file():
            raise DatasetError(f"{root} holds no drawn dataset; draw one with: dhdiff-ray data make --root {root}")
        return super().categories(root)

    def example(self, root: Path, seed: int = 0) -> None:
        """Both categories at 32 x 32 with a handful of images."""
        generate(root, resolution=32, seed=seed, defects_per_type=3, train_good=3, test_good=2)


def generate(
    root: Path,
    *,
    resolution: int = 64,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    defects_per_type: int = 80,
    train_good: int = 100,
    test_good: int = 40,
) -> None:
    """Draw the dataset into ``root``.

    Args:
        root: a folder that is not there yet, is empty, or holds the same drawing (which is then completed).
        resolution: side of the images in pixels.
        seed: another seed draws other products.
        categories: names of ``data/products``; None draws the demo's two.
        defects_per_type: anomalies per defect.
        train_good: normal images in ``train/good``.
        test_good: normal images in ``test/good``.

    Raises:
        DatasetError: unknown category, or ``root`` holds something else.
    """
    root = Path(root)
    chosen = choose_categories(sorted(DEFECTS), tuple(categories or DEMO), root)
    parameters = {
        "resolution": resolution,
        "seed": seed,
        "categories": chosen,
        "defects_per_type": defects_per_type,
        "train_good": train_good,
        "test_good": test_good,
    }
    _refuse_other_content(root, parameters)
    for category in chosen:
        jobs = [("train", GOOD, i) for i in range(train_good)] + [("test", GOOD, i) for i in range(test_good)]
        jobs += [("test", defect, i) for defect in DEFECTS[category] for i in range(defects_per_type)]
        for subset, defect, index in jobs:
            image = root / category / subset / defect / f"{index:03d}.png"
            drawing = draw(ARTISTS[category], defect, resolution, _rng(seed, category, subset, defect, index))
            if defect != GOOD:
                save_png(root / category / "ground_truth" / defect / f"{index:03d}_mask.png", drawing.mask)
            save_png(image, drawing.image)
    # Last, so that a drawing that was interrupted is not taken for a dataset.
    (root / PARAMETERS).write_text(json.dumps(parameters, indent=2) + "\n")


def _refuse_other_content(root: Path, parameters: dict[str, object]) -> None:
    file = root / PARAMETERS
    if file.is_file():
        if json.loads(file.read_text()) != parameters:
            raise DatasetError(f"{root} holds a drawing with other parameters (see {file.name}); choose another folder")
    elif root.is_dir() and any(p.name not in DEFECTS for p in root.iterdir()):
        raise DatasetError(f"{root} holds other files; choose a new folder to draw into")


def _rng(seed: int, category: str, subset: str, defect: str, index: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}|{category}|{subset}|{defect}|{index}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
