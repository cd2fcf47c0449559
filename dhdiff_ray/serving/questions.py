"""The fields of a request, and the two errors that refuse one.

Not in the paper. Decided: a picture is bytes from here on, whether it came as a form's file or as base64 in JSON; the
run's own pictures are named by number, so that no path from a request ever reaches a file system.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticKnownError

LEAST_STRENGTH = 0.001
"""Least noise to start from: one step of the longest schedule."""


class RefusedError(Exception):
    """A refused request: its HTTP status, what to do, and headers."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    def __reduce__(self) -> tuple[type[RefusedError], tuple[int, str, Mapping[str, str] | None]]:
        """Keeps the status when it travels between processes."""
        return RefusedError, (self.status, self.message, self.headers)


class BusyError(Exception):
    """All samplers are busy and the queue is full, or they are being restarted."""


def _file_bytes(value: object, field: ValidationInfo) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise RefusedError(422, f"{field.field_name} is not a PNG or JPEG in base64: {error}") from None


Picture = Annotated[bytes, BeforeValidator(_file_bytes), WithJsonSchema({"type": "string"})]
"""A PNG or JPEG file; base64 where it comes in JSON."""


class PairQuery(BaseModel):
    """A question for pairs; the same question always has the same bytes as answer."""

    model_config = ConfigDict(
        title="Ask", frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    category: str = Field(min_length=1, max_length=200)
    """A category that ``GET /v1/models`` lists; given by the address in ``/v1/categories/{category}/pairs``."""
    defect: str | None = Field(default=None, max_length=200)
    """One of its defects; may be left out where ``prompt`` names one."""
    prompt: str | None = Field(default=None, min_length=1, max_length=500)
    """Your own words instead of "a photo of a CATEGORY with DEFECT"; they must name one of the defects."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the first pair; the next ones count up."""
    n: int = Field(default=1, ge=1)
    """Pairs wanted."""
    base: Picture | None = None
    """Your own product image, PNG or JPEG in base64, instead of a normal image of the run; it is made square."""
    base_number: int | None = Field(default=None, ge=0)
    """One of the run's normal images, ``GET /v1/models/{category}/bases/{number}``."""
    reference: Picture | None = None
    """Your own picture of such a defect, PNG or JPEG in base64, instead of one of the run's."""
    reference_mask: Picture | None = None
    """Where the defect is in ``reference``, as a picture of its size, above zero inside; without it, everywhere."""
    reference_number: int | None = Field(default=None, ge=0)
    """One of the run's training anomalies of this defect, instead of one drawn from the seed."""
    control_mask: Picture | None = None
    """Where the defect shall be, as a picture of the base's size, above zero inside; else where a real one was."""
    points: list[tuple[float, float]] | None = Field(default=None, min_length=1, max_length=256)
    """The same as points (x, y) in pixels of your base image, or else of a model's own image."""
    boxes: list[tuple[float, float, float, float]] | None = Field(default=None, min_length=1, max_length=256)
    """The same as boxes (left, top, right, bottom) in such pixels."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps; else the run's."""
    guidance: float | None = Field(default=None, ge=0, le=50)
    """Classifier-free guidance scale; 1 or less switches it off; else the run's."""
    strength: float | None = Field(default=None, ge=LEAST_STRENGTH, le=1)
    """Start from the base noised this far instead of from pure noise; with ``start``, from the placed reference."""
    start: Literal["reference"] | None = None
    """Start from the reference's defect, put on the base and noised to ``strength`` (else as the run does, or .45): the
    run's, or your ``reference`` with its ``reference_mask``. Where you draw, it goes to the middle of the drawing."""
    previews: bool = False
    """Of ``pairs:stream`` alone: also send small pictures of each pair while it is drawn; the pair stays the same."""
    score_maps: bool = False
    """Also send what text attention saw of the defect's words: S^I, S^A, S^O and what they become (Eq. 6, Eq. 7)."""
    response: Literal["json", "multipart", "zip"] | None = None
    """How the pairs come: JSON with base64 PNGs, ``multipart/mixed`` or a zip file; else as ``Accept`` says."""
