"""Files to arrays: the square working image and its mask; reads only.

Section IV-B works at one square resolution. What we decided: the image is resized with antialiasing; the mask is any
value above zero and shrinks by maximum, so that a defect of a few pixels is still there at 64 x 64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from dhdiff_ray.records import Sample


class ImageError(ValueError):
    """An image or mask file that cannot be read; the message names the file."""


def read_image(sample: Sample, resolution: int) -> np.ndarray:
    """The image of a sample, uint8 (resolution, resolution, 3); grey, palette and 16-bit files become RGB.

    Raises:
        ImageError: the file is missing, truncated or not an image.
    """
    with _opened(sample.image) as picture:
        if picture.mode.startswith("I"):
            # Pillow clips 16-bit values to 255; scale them instead.
            picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
        picture = picture.convert("RGB")
        if picture.size != (resolution, resolution):
            picture = picture.resize((resolution, resolution), Image.Resampling.BICUBIC)
        return np.array(picture, dtype=np.uint8)


def read_mask(sample: Sample, resolution: int) -> np.ndarray:
    """The mask of a sample, uint8 (resolution, resolution) of 0 and 255; all zero for a normal image.

    Raises:
        ImageError: the file is unreadable, or its size differs from the image's.
    """
    if sample.mask is None:
        return np.zeros((resolution, resolution), dtype=np.uint8)
    with _opened(sample.mask) as picture:
        values = np.asarray(picture)
        size = picture.size
        bands = picture.getbands()
    with _opened(sample.image, decode=False) as image:
        if image.size != size:
            raise ImageError(f"{sample.mask} is {size} pixels, but its image {sample.image} is {image.size}")
    if values.ndim == 3:
        values = values[..., : len([b for b in bands if b != "A"])].max(axis=-1)
    return shrink_mask(values > 0, resolution)


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
    kept: list[Sample] = []
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    asked = 0
    for sample in samples:
        asked += 1
        try:
            image, mask = read_image(sample, resolution), read_mask(sample, resolution)
        except ImageError as error:
            if not skip_bad:
                raise
            warn(f"left out: {error}")
            continue
        kept.append(sample)
        images.append(image)
        masks.append(mask)
    if asked and not kept:
        raise ImageError(f"none of {asked} images could be read; check the dataset's folder")
    if not kept:
        return [], np.zeros((0, resolution, resolution, 3), np.uint8), np.zeros((0, resolution, resolution), np.uint8)
    return kept, np.stack(images), np.stack(masks)


def _opened(path: str, decode: bool = True) -> Image.Image:
    try:
        picture = Image.open(path)
        if decode:
            picture.load()
    except FileNotFoundError:
        raise ImageError(f"{path} is not there") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); "
            f"restore {Path(path).name}, or leave such files out with --skip-bad"
        ) from None
    return picture
