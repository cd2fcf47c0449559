"""Pictures of the page: each pair beside the real defect it was drawn after, and the real image it resembles most.

After the paper's Fig. 4 and 5. What we decided: masks are outlines that can be switched off, not drawn into pictures;
the first pairs of each defect are shown, never the best; the nearest real image is looked for among all training
anomalies of the category, so that a copy would show.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from dhdiff_ray.config import Config
from dhdiff_ray.data.encode import jpeg_bytes, png_bytes
from dhdiff_ray.data.images import ImageError, read_image, read_mask
from dhdiff_ray.data.regions import raw_mask, reference_image
from dhdiff_ray.pairs.writer import layout_of, read_pair, read_pair_rows
from dhdiff_ray.records import Sample
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import SPLIT, Run

SIDE = 288
"""Largest side of a picture on the page, in pixels."""
ASIDE = 128
"""Largest side of the pictures that stand folded below a pair."""
EXACT = 128
"""Side up to which a picture is kept to the pixel; photographs above it would make the page heavy."""
TRACED = 144
"""Side at which outlines are drawn."""
COMPARED_SIDE = 32
"""Side at which the nearest real image is looked for."""


@dataclass(frozen=True)
class Outline:
    """A mask's border as an SVG path in a square of ``side`` units; an empty mask has an empty path."""

    side: int
    path: str


@dataclass
class Thumb:
    """One pair beside a real one; pictures are data URIs, None where an image is not readable from here."""

    name: str
    prompt: str
    seed: int
    image: str
    mask: str
    outline: Outline
    real: str | None
    """The real anomaly that the pair was drawn after; without one, the nearest."""
    real_outline: Outline | None
    real_name: str
    base: str | None
    reference: str | None
    """The reference as the network sees it."""
    nearest: str | None
    nearest_name: str
    empty: bool
    """Whether the mask is empty."""


@dataclass
class CategoryGallery:
    """Pairs of one category by defect; no defects where none were made yet."""

    name: str
    defects: dict[str, list[Thumb]] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    """Pairs there are per defect."""
    damaged: str = ""
    """Why they cannot be shown, where a file of theirs is damaged."""


def galleries(run: Run, thumbs: int) -> list[CategoryGallery]:
    """The first ``thumbs`` pairs of every defect, by category; a run may have no split yet."""
    wanted = run.config.data.categories
    names = run.split.categories if run.folder.exists(SPLIT) else sorted(wanted)
    return [_category(run, name, thumbs) for name in names if not wanted or name in wanted]


def served_pair(folder: RunFolder) -> dict[str, Any] | None:
    """The pair that the demo asked the endpoint for, if it did."""
    if not folder.exists("served/request.json") or not folder.exists("served/image.png"):
        return None
    uris = {name: data_uri(folder.read_bytes(f"served/{name}.png"), "png") for name in ("image", "mask")}
    return {"request": folder.read_json("served/request.json").get("request", {}), **uris}


def outline(mask: np.ndarray) -> Outline:
    """The line around a mask, one pixel of the drawing outside it, so that it hides nothing of the defect.

    Args:
        mask: (h, w), above zero is defect; made smaller first where it is larger than ``TRACED``.
    """
    inside = np.asarray(mask) > 0
    if inside.shape[0] > TRACED:
        small = Image.fromarray(inside.astype(np.uint8) * 255).resize((TRACED, TRACED), Image.Resampling.BOX)
        inside = np.asarray(small) > 0
    factor = max(1, TRACED // inside.shape[0])
    inside = inside.repeat(factor, axis=0).repeat(factor, axis=1)
    grown = np.pad(
        np.asarray(binary_dilation(inside, np.ones((3, 3))), dtype=np.int8) if inside.any() else inside.astype(np.int8),
        1,
    )
    parts = []
    for line, column, length in _runs(np.diff(grown, axis=0)[:, 1:-1] != 0):
        parts.append(f"M{column} {line}h{length}")
    for line, column, length in _runs((np.diff(grown, axis=1)[1:-1] != 0).T):
        parts.append(f"M{line} {column}v{length}")
    return Outline(inside.shape[0], "".join(parts))


def nearest(image: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> int:
    """Index of the image of (n, h, w, 3) with the least squared pixel distance to (h, w, 3), both made small first."""
    distances = ((_small(others) - _small(image[None])) ** 2).sum(axis=(1, 2, 3))
    return int(np.argmin(distances))


def picture(array: np.ndarray, side: int = SIDE) -> str:
    """Data URI of an image or mask: small ones exactly, larger ones as a JPEG of at most ``side`` pixels."""
    if array.shape[0] <= min(EXACT, side):
        return data_uri(png_bytes(array), "png")
    if array.shape[0] > side:
        array = np.array(Image.fromarray(array).resize((side, side), Image.Resampling.BOX))
    return data_uri(jpeg_bytes(array, quality=88), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a picture as an address that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _category(run: Run, name: str, thumbs: int) -> CategoryGallery:
    gallery = CategoryGallery(name)
    if not layout_of(run.folder, name):
        return gallery
    try:
        return _filled(gallery, run, read_pair_rows(run.folder, name), thumbs)
    except DamagedError as error:
        return CategoryGallery(name, damaged=str(error))


def _filled(gallery: CategoryGallery, run: Run, rows: list[dict[str, Any]], thumbs: int) -> CategoryGallery:
    name = gallery.name
    samples = {s.key: s for s in (run.category(name).train if run.folder.exists(SPLIT) else ())}
    real = _readable((s for s in samples.values() if not s.is_good), run.config.data.resolution)
    for defect in sorted({row["defect"] for row in rows}):
        pairs = [row for row in rows if row["defect"] == defect]
        gallery.made[defect] = len(pairs)
        gallery.defects[defect] = [_thumb(run, row, samples, real) for row in pairs[:thumbs]]
    return gallery


def _thumb(run: Run, row: dict[str, Any], samples: dict[str, Sample], real: list[tuple[Sample, np.ndarray]]) -> Thumb:
    config = run.config
    image, mask = read_pair(run.folder, row)
    like = real[nearest(image, [other for _, other in real])] if real else None
    base, reference = (
        next(iter(_readable([samples[row[role]]] if row[role] in samples else [], config.data.resolution)), None)
        for role in ("base", "reference")
    )
    beside = reference if reference and not reference[0].is_good else like
    return Thumb(
        name=f"{row['index']:06d}",
        prompt=row["prompt"],
        seed=row["seed"],
        image=picture(image),
        mask=picture(mask, ASIDE),
        outline=outline(mask),
        real=picture(beside[1]) if beside else None,
        real_outline=outline(read_mask(beside[0], config.data.resolution)) if beside else None,
        real_name=beside[0].key if beside else "",
        base=picture(base[1], ASIDE) if base else None,
        reference=_reference(config, *reference) if reference else None,
        nearest=picture(like[1], ASIDE) if like else None,
        nearest_name=like[0].key if like else "",
        empty=not mask.any(),
    )


def _reference(config: Config, sample: Sample, image: np.ndarray) -> str:
    """The reference as the network sees it: with the cells that the configuration keeps."""
    cells = raw_mask(read_mask(sample, config.data.resolution), config.data.grid)
    return picture(reference_image(image, cells, config.train.reference), ASIDE)


def _readable(samples: Iterable[Sample], resolution: int) -> list[tuple[Sample, np.ndarray]]:
    """Images that can be read from here; a page made on another machine than the data does without the rest."""
    pictures = []
    for sample in samples:
        with contextlib.suppress(ImageError):
            pictures.append((sample, read_image(sample, resolution)))
    return pictures


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Line, start and length of each run of true cells along the lines of a table."""
    for line, row in enumerate(edges):
        turns = np.flatnonzero(np.diff(np.pad(row, 1).astype(np.int8)))
        for start, end in zip(turns[::2], turns[1::2], strict=True):
            yield line, int(start), int(end - start)


def _small(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    size = (COMPARED_SIDE, COMPARED_SIDE)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX), np.float32) for one in images])
