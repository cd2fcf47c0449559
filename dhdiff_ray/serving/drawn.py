"""What a sampler returns, as bytes of PNG files; ``responses.py`` decides how they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScoreMap:
    """One map of text attention: a grey PNG with alpha at the pair's size, and the values that are black and white."""

    png: bytes
    low: float
    high: float


@dataclass(frozen=True)
class DrawnPair:
    """An image with its mask, and what they were made from."""

    image: bytes
    mask: bytes
    category: str
    defect: str
    seed: int
    prompt: str
    reference: str | None
    """Key of the run's reference image; None if the user sent one."""
    base: str | None
    """Key of the run's normal image; None if the user sent one."""
    score_maps: Mapping[str, ScoreMap] | None = None
    """By name, see ``score_maps.py``; None unless asked for."""


@dataclass(frozen=True)
class Preview:
    """A half-drawn pair as it is expected to become: small pictures of image and mask."""

    image: bytes
    mask: bytes


@dataclass(frozen=True)
class Event:
    """One line of a stream, with its values in the order they are sent."""

    name: Literal["queued", "progress", "preview", "pair", "done", "failed"]
    values: Mapping[str, int | bytes | DrawnPair | Mapping[str, str | int]]
