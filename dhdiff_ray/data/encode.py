"""Arrays as PNG and JPEG: the only file that encodes pictures; the same array gives the same bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def png_bytes(array: np.ndarray) -> bytes:
    """PNG of a uint8 (h, w, 3) image or (h, w) mask, with no metadata: the same array gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def jpeg_bytes(array: np.ndarray, quality: int = 85) -> bytes:
    """JPEG of a uint8 (h, w, 3) or (h, w) array, for previews."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def save_png(path: Path, array: np.ndarray) -> None:
    """Write one image or mask of a dataset on the local disk, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(array))


def save_jpeg(path: Path, array: np.ndarray) -> None:
    """Write one image of a dataset as JPEG on the local disk, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg_bytes(array, quality=95))
