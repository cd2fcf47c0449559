"""Files to arrays: the square working image and its mask; reads only.

Section IV-B works at one square resolution. What we decided: the image is resized with antialiasing; the mask is any
value above zero and shrinks by maximum, so that a defect of a few pixels is still there at 64 x 64. A picture that its
camera marked as turned is turned upright first; one of more pixels than Pillow holds safe is refused.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dhdiff_ray.data.layout import COMBINED
from dhdiff_ray.records import Sample

# A header that promises more pixels than any camera has is an attack or a mistake, never a warning among others.
warnings.simplefilter("error", Image.DecompressionBombWarning)
ORIENTATION = 0x0112
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error)
"""What Pillow raises on files that are not what they say."""


class ImageError(ValueError):
    """An image or mask file that cannot be read; the message names the file."""


def read_image(sample: Sample, resolution: int) -> np.ndarray:
    """The image of a sample, uint8 (resolution, resolution, 3); grey, palette and 16-bit files become RGB.

    Raises:
        ImageError: the file is missing, truncated or not an image.
    """
    picture = picture_rgb(sample.image)
    if picture.size != (resolution, resolution):
        picture = picture.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.array(picture, dtype=np.uint8)


def picture_rgb(path: str) -> Image.Image:
    """One image at its own size, upright, as RGB.

    Raises:
        ImageError: the file is missing, truncated or not an image.
    """
    picture = _opened(path)
    if picture.mode.startswith("I"):
        # Pillow clips 16-bit values to 255; scale them instead.
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    return picture.convert("RGB")


def read_mask(sample: Sample, resolution: int) -> np.ndarray:
    """The mask of a sample, uint8 (resolution, resolution) of 0 and 255; all zero for a normal image.

    Raises:
        ImageError: a file is unreadable, or its size differs from the image's.
    """
    if not sample.masks:
        return np.zeros((resolution, resolution), dtype=np.uint8)
    return shrink_mask(full_mask(sample), resolution)


def full_mask(sample: Sample) -> np.ndarray:
    """The mask of an anomaly at its image's own size, bool (h, w): all its files, of them the defect's own values.

    Raises:
        ImageError: a file is unreadable, or its size differs from the image's.
    """
    (width, height), _, _ = header(sample.image)
    union = np.zeros((height, width), dtype=bool)
    for path in sample.masks:
        values = mask_array(path)
        if values.shape != union.shape:
            size, turned = values.shape[::-1], "" if values.shape != (width, height) else "; is one of them turned?"
            raise ImageError(f"{path} is {size} pixels, but its image {sample.image} is {(width, height)}{turned}")
        union |= np.isin(values, sample.values) if sample.values else values > 0
    return union


def mask_array(path: str) -> np.ndarray:
    """One mask file as it is, (h, w); of several channels the largest value counts, transparency does not.

    Raises:
        ImageError: the file is missing or not an image.
    """
    picture = _opened(path)
    if picture.mode == "CMYK":
        picture = picture.convert("L")
    values = np.asarray(picture)
    if values.ndim == 3:
        values = values[..., : len([b for b in picture.getbands() if b != "A"])].max(axis=-1)
    return values


def mask_values(path: str) -> tuple[int, ...]:
    """The different values above zero of one mask file, sorted."""
    values = mask_array(path)
    if values.dtype == np.uint8:
        return tuple(int(v) for v in np.flatnonzero(np.bincount(values.ravel(), minlength=256)) if v)
    return tuple(int(v) for v in np.unique(values) if v > 0)


def shrink_mask(mask: np.ndarray, resolution: int) -> np.ndarray:
    """A mask at another size, uint8 of 0 and 255: each new pixel is the maximum over all it touches.

    Args:
        mask: (h, w), anything above zero is defect.
        resolution: side of the square result in pixels.
    """
    result = (np.asarray(mask) > 0).astype(np.uint8) * 255
    for axis in (0, 1):
        side = result.shape[axis]
        if side == resolution:
            continue
        start = np.arange(resolution) * side // resolution
        stop = -(-np.arange(1, resolution + 1) * side // resolution)
        # Neighbouring ranges overlap when the sides do not divide; every second interval is one range.
        edges = np.stack([start, np.maximum(stop, start + 1)], axis=1).ravel()
        padded = np.concatenate([result, np.zeros_like(result.take([0], axis))], axis)
        result = np.maximum.reduceat(padded, edges, axis=axis).take(np.arange(0, 2 * resolution, 2), axis)
    return result


def read_many(
    samples: Iterable[Sample], resolution: int, skip_bad: bool, warn: Callable[[str], None]
) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """Images and masks of many samples.

    Args:
        samples: what to read.
        resolution: side in pixels.
        skip_bad: leave out unreadable files, each named through ``warn``, instead of raising.
        warn: takes one message.

    Returns:
        The samples kept, images uint8 (n, h, w, 3) and masks uint8 (n, h, w) of 0 and 255.

    Raises:
        ImageError: an unreadable file while ``skip_bad`` is off, or nothing readable at all.
    """
    samples, read = list(samples), []
    for sample in samples:
        try:
            read.append((sample, read_image(sample, resolution), read_mask(sample, resolution)))
        except ImageError as error:
            if not skip_bad:
                raise
            warn(f"left out: {error}")
    if samples and not read:
        raise ImageError(f"none of {len(samples)} images could be read; check the dataset's folder")
    if not read:
        return [], np.zeros((0, resolution, resolution, 3), np.uint8), np.zeros((0, resolution, resolution), np.uint8)
    kept, images, masks = zip(*read, strict=True)
    return list(kept), np.stack(images), np.stack(masks)


def whole_images(samples: Iterable[Sample]) -> list[Sample]:
    """One sample per image, in order: an image that is listed once for each of its defects shows all of them."""
    by_image: dict[str, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(sample.image, []).append(sample)
    return [same[0] if len(same) == 1 else _together(same) for same in by_image.values()]


def _together(same: Sequence[Sample]) -> Sample:
    masks = tuple(dict.fromkeys(mask for sample in same for mask in sample.masks))
    values = tuple(sorted({value for sample in same for value in sample.values}))
    key = same[0].key.partition("#")[0]
    return replace(same[0], key=key, defect=COMBINED, mask=masks[0], more_masks=masks[1:], values=values)


def header(path: str) -> tuple[tuple[int, int], str, bool]:
    """Size (width, height) as it is shown, Pillow's mode, and whether the camera marked it as turned; decodes nothing.

    Raises:
        ImageError: the file is missing or not an image.
    """
    with _opened(path, decode=False) as picture:
        # Only these formats carry the mark at the front; asking a PNG for it would decode the whole file.
        exif = picture.getexif() if picture.format in ("JPEG", "MPO", "TIFF") else {}
        orientation = exif.get(ORIENTATION, 1)
        width, height = picture.size[::-1] if orientation in (5, 6, 7, 8) else picture.size
        return (width, height), picture.mode, orientation not in (0, 1)


def _opened(path: str, decode: bool = True) -> Image.Image:
    try:
        picture = Image.open(path)
        if not decode:
            return picture
        picture.load()
        return ImageOps.exif_transpose(picture) if picture.format in ("JPEG", "MPO", "TIFF") else picture
    except FileNotFoundError:
        raise ImageError(f"{path} is not there") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"{path} says it has more than {limit} million pixels; cut it into tiles") from None
    except UNREADABLE as error:
        empty = "it has no content" if Path(path).is_file() and not Path(path).stat().st_size else str(error)
        raise ImageError(
            f"{path} cannot be read as an image ({empty}); "
            f"restore {Path(path).name}, or leave such files out: --set data.skip_bad=true"
        ) from None
