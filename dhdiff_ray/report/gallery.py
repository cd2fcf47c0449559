"""Pictures of the page: what each pair was made from, what came out, and the real image it resembles most.

The columns follow the paper's Fig. 4 and 5. What we decided: the first pairs of each defect are shown, never the best;
the nearest real image is looked for among all training anomalies of the category, so that a copy would show.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from dhdiff_ray.config import Config
from dhdiff_ray.data.encode import jpeg_bytes, png_bytes
from dhdiff_ray.data.images import ImageError, read_image, read_mask
from dhdiff_ray.data.regions import raw_mask, reference_image
from dhdiff_ray.pairs.writer import METADATA, PAIRS, read_pair, read_pair_rows
from dhdiff_ray.records import Sample
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import SPLIT, Run

SIDE = 192
"""Largest side of a picture on the page, in pixels."""
COMPARED_SIDE = 32
"""Side at which the nearest real image is looked for."""
OUTLINE = (255, 0, 200)


@dataclass
class Thumb:
    """One pair's row of pictures, as data URIs; None where an image is not readable from here."""

    name: str
    prompt: str
    seed: int
    base: str | None
    reference: str | None
    image: str
    mask: str
    overlay: str
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


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image enlarged to about ``SIDE`` pixels, with a thin line just outside the mask.

    Args:
        image: uint8 (h, w, 3).
        mask: (h, w), above zero is defect.
    """
    factor = max(1, SIDE // image.shape[0])
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    inside = (mask > 0).repeat(factor, axis=0).repeat(factor, axis=1)
    grown = np.asarray(binary_dilation(inside, iterations=max(1, large.shape[0] // 96)), dtype=bool)
    large[grown & ~inside] = OUTLINE
    return large


def nearest(image: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> int:
    """Index of the image of (n, h, w, 3) with the least squared pixel distance to (h, w, 3), both made small first."""
    distances = ((_small(others) - _small(image[None])) ** 2).sum(axis=(1, 2, 3))
    return int(np.argmin(distances))


def picture(array: np.ndarray) -> str:
    """Data URI of an image or mask: small ones exactly, larger ones as a JPEG of at most ``SIDE`` pixels."""
    if array.shape[0] <= SIDE:
        return data_uri(png_bytes(array), "png")
    small = Image.fromarray(array).resize((SIDE, SIDE), Image.Resampling.BOX)
    return data_uri(jpeg_bytes(np.array(small), quality=88), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a picture as an address that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _category(run: Run, name: str, thumbs: int) -> CategoryGallery:
    gallery = CategoryGallery(name)
    if not run.folder.exists(f"{PAIRS}/{name}/{METADATA}"):
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
    like, like_image = real[nearest(image, [other for _, other in real])] if real else (None, image)
    base, reference = (
        _readable([samples[row[role]]] if row[role] in samples else [], config.data.resolution)
        for role in ("base", "reference")
    )
    return Thumb(
        name=f"{row['index']:06d}",
        prompt=row["prompt"],
        seed=row["seed"],
        base=picture(base[0][1]) if base else None,
        reference=_reference(config, *reference[0]) if reference else None,
        image=picture(image),
        mask=picture(mask),
        overlay=picture(outlined(image, mask)),
        nearest=picture(like_image) if like else None,
        nearest_name=like.key if like else "",
        empty=not mask.any(),
    )


def _reference(config: Config, sample: Sample, image: np.ndarray) -> str:
    """The reference as the network sees it: with the cells that the configuration keeps."""
    cells = raw_mask(read_mask(sample, config.data.resolution), config.data.grid)
    return picture(reference_image(image, cells, config.train.reference))


def _readable(samples: Iterable[Sample], resolution: int) -> list[tuple[Sample, np.ndarray]]:
    """Images that can be read from here; a page made on another machine than the data does without the rest."""
    pictures = []
    for sample in samples:
        with contextlib.suppress(ImageError):
            pictures.append((sample, read_image(sample, resolution)))
    return pictures


def _small(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    size = (COMPARED_SIDE, COMPARED_SIDE)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX), np.float32) for one in images])
