"""Folders of made images as they come out of this tool and out of others; reads only.

Not in the paper. Known layouts, found by themselves at the folder given or below it::

    <category>/test/<defect>/000.png           with ground_truth/<defect>/000_mask.png: MVTec AD's, and ours
    <category>/<defect>/image/0.jpg            with mask/0.jpg: AnomalyDiffusion, DualAnoDiff
    <category>/<defect>/000.png                a folder per defect
    000.png                                    a plain folder: one defect

What we decided: a mask belongs to an image by its stem; it is a defect above 127, because others store masks as JPEG.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dhdiff_ray.data.datasets.mvtec import images_in
from dhdiff_ray.data.images import ImageError, read_image
from dhdiff_ray.records import GOOD, Sample

LAYOUTS = "MVTec AD's tree, <category>/<defect>/image, <category>/<defect>, or a folder of images"


@dataclass(frozen=True)
class MadeImages:
    """The images of one defect and their masks, by the image's stem."""

    category: str
    defect: str
    layout: str
    images: tuple[Path, ...]
    masks: dict[str, Path] = field(default_factory=dict)


def find_made(root: Path, masks: Path | None = None) -> list[MadeImages]:
    """What lies in a folder, by category and defect.

    Args:
        root: the folder.
        masks: folder of the masks where ``root`` is a plain folder.

    Raises:
        ImageError: there is no such folder, or nothing in it has a known layout.
    """
    if not root.is_dir():
        raise ImageError(f"there is no folder {root}; give the folder that holds the images")
    for layout, find in (("mvtec", _mvtec), ("image-mask", _image_mask), ("defect folders", _defect_folders)):
        defects = [MadeImages(c, d, layout, tuple(i), m) for c, d, i, m in find(root)]
        if defects:
            return sorted(defects, key=lambda made: (made.category, made.defect))
    images = images_in(root)
    if not images:
        raise ImageError(f"{root} holds no images in a layout that is known: {LAYOUTS}; PNG, JPEG, BMP or TIFF files")
    by_stem = _stems(masks) if masks else {}
    return [MadeImages(root.parent.name, root.name, "plain folder", tuple(images), by_stem)]


def read_made(path: Path, side: int | None = None) -> np.ndarray:
    """One image, uint8 (h, w, 3), at its own size or resized to a square.

    Raises:
        ImageError: the file cannot be read.
    """
    if side is None:
        with _opened(path, "an image") as picture:
            return np.array(picture.convert("RGB"), dtype=np.uint8)
    return read_image(Sample(path.name, "", "", "test", str(path)), side)


def read_made_mask(path: Path) -> np.ndarray:
    """One mask, bool (h, w).

    Raises:
        ImageError: the file cannot be read.
    """
    with _opened(path, "a mask") as picture:
        return np.array(picture.convert("L")) > 127


@contextlib.contextmanager
def _opened(path: Path, role: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as {role} ({error}); take it away or restore it") from None


def check_sizes(images: Sequence[Path]) -> None:
    """Refuse images of different sizes, by their headers.

    Raises:
        ImageError: two sizes, or a file that is no image.
    """
    sizes: dict[tuple[int, int], Path] = {}
    for path in images:
        with _opened(path, "an image") as picture:
            sizes.setdefault(picture.size, path)
        if len(sizes) > 1:
            (one, first), (two, other) = sizes.items()
            raise ImageError(
                f"images of different sizes: {first} is {one[0]} x {one[1]}, {other} is {two[0]} x {two[1]}; "
                "make them one size with --resolution SIDE"
            )


_Defects = Iterator[tuple[str, str, list[Path], dict[str, Path]]]


def _mvtec(root: Path) -> _Defects:
    for category in (root, *_folders(root)):
        for defect in _folders(category / "test"):
            images = images_in(defect)
            if images and defect.name != GOOD:
                yield category.name, defect.name, images, _stems(category / "ground_truth" / defect.name)


def _image_mask(root: Path) -> _Defects:
    nested = [(c, d) for c in _folders(root) for d in _folders(c)]
    for category, defect in (
        (root.parent, root),
        *((root, defect) for defect in _folders(root)),
        *nested,
    ):
        images = images_in(defect / "image")
        if images:
            yield category.name, defect.name, images, _stems(defect / "mask")


def _defect_folders(root: Path) -> _Defects:
    for defect in _folders(root):
        if images := images_in(defect):
            yield root.name, defect.name, images, {}
        for inner in _folders(defect):
            if images := images_in(inner):
                yield defect.name, inner.name, images, {}


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")) if path.is_dir() else []


def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem.removesuffix("_mask"): path for path in images_in(folder)}
