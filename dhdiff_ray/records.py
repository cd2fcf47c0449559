"""The nouns everybody shares: a real image, a request for a pair, a made pair, a score.

Standard library and numpy only, so that every layer may import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

GOOD = "good"
"""The name the archives give to normal images; it stands where a defect's name would."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A real image as a dataset lists it; paths are absolute.

    ``key`` is the image's path below the dataset's root; where one image stands for several defects, each of its
    samples adds ``#defect``.
    """

    key: str
    category: str
    defect: str
    subset: str  # the side the archive put it on: ``train``, ``test`` or ``validation``; empty where it does not say
    image: str
    mask: str | None = None
    group: str | None = None  # images of the same physical part share a group and never lie on both sides of a split
    more_masks: tuple[str, ...] = ()  # further mask files of the same image; where any of them is set, the defect is
    values: tuple[int, ...] = ()  # pixel values of the masks that mean this defect; empty: any value above zero

    @property
    def masks(self) -> tuple[str, ...]:
        """All mask files; none for a normal image."""
        return (self.mask, *self.more_masks) if self.mask else ()

    @property
    def is_good(self) -> bool:
        """Whether the image shows no defect."""
        return self.defect == GOOD


@dataclass(frozen=True, slots=True)
class Request:
    """What one pair is made from; together with the model it determines every pixel of the pair."""

    category: str
    defect: str
    index: int  # counts the pairs of one defect from 0; names the files
    seed: int
    prompt: str
    base: str  # ``Sample.key`` of the normal image the defect is put on
    reference: str  # ``Sample.key`` of the real training anomaly that lends its raw mask and its look
    attempt: int = 0  # tries before this one whose image and mask did not agree; the seed is that of this try

    @property
    def name(self) -> str:
        """Zero-padded file stem, equal for image and mask."""
        return f"{self.index:06d}"

    def as_dict(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pair:
    """A made image with its mask: ``image`` uint8 (h, w, 3), ``mask`` uint8 (h, w) of 0 and 255."""

    request: Request
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, slots=True)
class Score:
    """One value with the conditions it was measured under."""

    metric: str
    value: float | None
    n: int  # images that entered the value
    conditions: dict[str, Any] = field(default_factory=dict)
    reference: float | None = None
    """The same measured on real images against real images, where that can be: the value's scale."""

    def as_dict(self) -> dict[str, Any]:
        """The score as plain JSON values."""
        return asdict(self)


def pair_seed(run_seed: int, category: str, defect: str, index: int, attempt: int = 0) -> int:
    """Seed of one pair: 63 bits of a hash, so that no worker, shard or order can change it."""
    words = f"{category}|{defect}|{index}|{run_seed}" + (f"|{attempt}" if attempt else "")
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def by_category(samples: Iterable[Sample]) -> dict[str, tuple[Sample, ...]]:
    """Samples by category, each in the order given."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.category, []).append(sample)
    return {category: tuple(same) for category, same in found.items()}
