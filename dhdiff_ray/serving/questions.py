"""What one may ask of the endpoint, and what a question becomes: one order per pair.

Not in the paper. Decided: pictures are decoded with limits, turned upright and re-encoded as arrays before anything
sees them; the run's own pictures are named by number, so that no path from a request ever reaches a file system.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from dhdiff_ray.pairs.make import Own
from dhdiff_ray.records import Request

MIN_SIDE = 8
"""Smallest side of a picture that is taken, in pixels."""
FORMATS = ("PNG", "JPEG")


class RefusedError(ValueError):
    """A question that cannot be answered; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps the status when it travels between processes."""
        return RefusedError, (self.status, self.message)


class BusyError(Exception):
    """All samplers are at work and the queue is full, or they are being restarted."""


class Ask(BaseModel):
    """A question for pairs; the same question always has the same bytes as answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    category: str = Field(max_length=200)
    """A category that ``GET /v1/models`` lists; given by the address in ``/v1/categories/{category}/pairs``."""
    defect: str | None = Field(default=None, max_length=200)
    """One of its defects; may be left out where ``prompt`` names one."""
    prompt: str | None = Field(default=None, min_length=1, max_length=500)
    """Your own words instead of "a photo of a CATEGORY with DEFECT"; they must name one of the defects."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the first pair; the next ones count up."""
    n: int = Field(default=1, ge=1)
    """Pairs wanted."""
    base: str | None = None
    """Your own product image, PNG or JPEG in base64, instead of a normal image of the run; it is made square."""
    base_number: int | None = Field(default=None, ge=0)
    """One of the run's normal images, ``GET /v1/models/{category}/bases/{number}``."""
    reference: str | None = None
    """Your own picture of such a defect, PNG or JPEG in base64, instead of one of the run's."""
    reference_mask: str | None = None
    """Where the defect is in ``reference``, as a picture of its size, above zero inside; without it, everywhere."""
    reference_number: int | None = Field(default=None, ge=0)
    """One of the run's training anomalies of this defect, instead of one drawn from the seed."""
    control_mask: str | None = None
    """Where the defect shall be, as a picture of the base's size, above zero inside; else where a real one was."""
    points: list[tuple[float, float]] | None = Field(default=None, min_length=1, max_length=256)
    """The same as points (x, y) in pixels of your base image, or else of a model's own image."""
    boxes: list[tuple[float, float, float, float]] | None = Field(default=None, min_length=1, max_length=256)
    """The same as boxes (left, top, right, bottom) in such pixels."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps; else the run's."""
    guidance: float | None = Field(default=None, ge=0, le=50)
    """Classifier-free guidance scale; 1 or less switches it off; else the run's."""
    strength: float | None = Field(default=None, gt=0, le=1)
    """Start from the base noised this far instead of from pure noise."""
    previews: bool = False
    """Of ``pairs:stream`` alone: also send small pictures of each pair while it is drawn; the pair stays the same."""
    score_maps: bool = False
    """Also send what text attention saw of the defect's words: S^I, S^A, S^O and what they become (Eq. 6, Eq. 7)."""
    response: Literal["json", "multipart", "zip"] | None = None
    """How the pairs come: JSON with base64 PNGs, ``multipart/mixed`` or a zip file; else as ``Accept`` says."""


@dataclass(frozen=True)
class Settings:
    """What all pairs of one pass must have in common."""

    category: str
    steps: int
    guidance: float
    start: Literal["noise", "base"]
    strength: float
    control: bool
    """Whether a control mask is given to the network."""


@dataclass(frozen=True)
class Order:
    """One pair to be drawn, and who looks at it; looking changes nothing, so it may differ within a pass."""

    request: Request
    settings: Settings
    own: Own = field(default_factory=Own)
    previews: bool = False
    score_maps: bool = False


def picture(field: str, text: str, max_side: int) -> Image.Image:
    """A picture from a request, upright.

    Args:
        field: its name in the request, for the message.
        text: base64 of a PNG or JPEG file.
        max_side: largest side in pixels; the file's own word is read before a pixel is unpacked.

    Raises:
        RefusedError: 422 with what is wrong.
    """
    try:
        opened = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=FORMATS)
        wide, high = opened.size
        if max(wide, high) > max_side or min(wide, high) < MIN_SIDE:
            raise RefusedError(
                422, f"{field} is {wide} x {high} pixels; at least {MIN_SIDE} and at most {max_side} a side"
            )
        opened.load()
        return ImageOps.exif_transpose(opened)
    except RefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedError(422, f"{field} unpacks to far too many pixels; at most {max_side} a side") from None
    except (binascii.Error, OSError, SyntaxError, ValueError, EOFError) as error:
        raise RefusedError(422, f"{field} is not a PNG or JPEG in base64: {error}") from None


def rgb(opened: Image.Image, side: int) -> np.ndarray:
    """The picture as uint8 (side, side, 3); 16-bit grey is scaled, transparency is dropped."""
    if opened.mode.startswith("I"):
        opened = Image.fromarray((np.asarray(opened).clip(0, 65535) // 257).astype(np.uint8))
    return np.array(opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)


def bools(opened: Image.Image) -> np.ndarray:
    """The picture as (h, w) of True where any colour is above zero and not wholly transparent."""
    values = np.asarray(opened.convert("RGBA") if "transparency" in opened.info or opened.mode == "P" else opened)
    if values.ndim == 2:
        return values > 0
    bands = opened.getbands() if values.shape[2] == len(opened.getbands()) else ("R", "G", "B", "A")
    colours = values[..., [i for i, band in enumerate(bands) if band != "A"]].max(axis=-1) > 0
    return colours & (values[..., bands.index("A")] > 0) if "A" in bands else colours
