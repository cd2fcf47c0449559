"""A step's rows as plain arrays: what is drawn of a pair, and cut out (sections III-B and IV-B).

Decided: which samples, flips and drop-outs a row of a batch gets depends on (seed, step, row) alone, so that a resumed
run sees the batches it would have seen, on any number of workers. Nothing here needs torch: processes that only read
start sooner and are a fifth as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.regions import reference_image, window_around

Shown = Literal["defect", "background", "full", "none"]
"""What a reference shows; see ``data.regions.reference_image``."""
UNFLIPPED = ((False, False),)
FLIPPED = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True)
class Row:
    """One row of a batch before it becomes tensors."""

    index: int
    flips: tuple[bool, bool]  # mirrored left to right, top to bottom
    reference: Shown  # ``none`` where it was dropped
    text_dropped: bool
    control: Literal["none", "raw", "fine"]
    """What the control mask shows: nothing (dropped), the defect's cells, or its outline."""
    region: np.ndarray  # uint8 (h, w), where the pair is to be drawn, before flips
    window: tuple[slice, slice]


class Indexed(Protocol):
    """Arrays by number."""

    def __getitem__(self, index: int, /) -> Any:
        """One of them."""
        ...


class Pictures(Protocol):
    """What rows are drawn from: n images with their masks, by number."""

    @property
    def images(self) -> Indexed:
        """uint8 (h, w, 3) each; without channels where latents stand for them."""
        ...

    @property
    def masks(self) -> Indexed:
        """uint8 (h, w) each."""
        ...

    @property
    def raw_masks(self) -> Indexed:
        """uint8 (h, w) each."""
        ...

    def choose(self, normal_fraction: float, draws: np.ndarray) -> int:
        """The image of one row, by three numbers of [0, 1)."""
        ...

    def anomaly_like(self, index: int, draw: float) -> int | None:
        """For a normal image an anomaly whose place it could have had; None for an anomaly."""
        ...

    def word(self, index: int) -> int:
        """Which prompt an image has."""
        ...


@dataclass(frozen=True)
class Cut:
    """One worker's rows of a step as plain arrays: a batch before words and tensors, as small as it travels."""

    image: np.ndarray  # uint8 (b, h, w, 3)
    mask: np.ndarray  # uint8 (b, h, w)
    raw_mask: np.ndarray  # uint8 (b, h, w)
    control_mask: np.ndarray  # uint8 (b, h, w)
    reference: np.ndarray  # uint8 (b, h, w, 3)
    regions: np.ndarray  # uint8 (n, h, w), of all workers' rows
    control_present: np.ndarray  # (b,), 0 or 1
    words: np.ndarray  # (b,), which prompt; -1 where it was dropped
    seed: int
    rows: slice
    ranks: int
    latents: Any  # (3, b, c, h', w'), an array or a tensor, or None


class Latents(Protocol):
    """The latents of the pictures that rows are drawn from."""

    @property
    def factor(self) -> int:
        """Pixels per latent position along a side."""
        ...

    def latents(self, rows: Sequence[Row]) -> Any:
        """(3, b, c, h', w'), an array or a tensor: image, mask, reference."""
        ...


class Cutter:
    """Draws the rows of a step from pictures and cuts them out.

    Args:
        config: the run's configuration.
        pictures: what to draw from.
        cache: their latents; None where they are computed in each step.
    """

    def __init__(self, config: Config, pictures: Pictures, cache: Latents | None = None) -> None:
        self.config, self.pictures, self.cache = config.train, pictures, cache
        self.window = config.train.window or config.data.resolution
        self.seed = config.run.seed

    def cut(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Cut:
        """This rank's part of one step's ``total`` rows; see :meth:`BatchSource.draw`."""
        rng = np.random.default_rng((self.seed, step))
        every = [self._draw_one(rng) for _ in range(total)]
        share = slice(rank * total // world_size, (rank + 1) * total // world_size)
        rows = every[share]
        arrays = [self._arrays(row) for row in rows]
        image, mask, raw, control, reference = (np.stack(column) for column in zip(*arrays, strict=True))
        return Cut(
            image=image,
            mask=mask,
            raw_mask=raw,
            control_mask=control,
            reference=reference,
            regions=np.stack([mirrored(row.region[row.window], row.flips) for row in every]),
            control_present=np.array([row.control != "none" for row in rows], np.float32),
            words=np.array([-1 if row.text_dropped else self.pictures.word(row.index) for row in rows]),
            seed=int(rng.integers(2**62)),
            rows=share,
            ranks=world_size,
            latents=None if self.cache is None else self.cache.latents(rows),
        )

    def _draw_one(self, rng: np.random.Generator) -> Row:
        c, pictures = self.config, self.pictures
        draws = rng.random(12)
        i = pictures.choose(c.normal_fraction, draws)
        raw = pictures.raw_masks[i]
        if draws[8] >= c.clean_background:
            region = np.full_like(raw, 255)
        elif (like := pictures.anomaly_like(i, draws[9])) is not None:
            region = pictures.raw_masks[like]  # a normal image is redrawn where an anomaly might have been
        else:
            region = raw
        fine = 1 - c.fine_control * (1 - c.control_dropout)
        align = 1 if self.cache is None else self.cache.factor  # windows are cut from cached latents too
        return Row(
            index=i,
            flips=(c.flips and draws[3] < 0.5, c.flips and draws[4] < 0.5),
            reference="none" if draws[5] < c.reference_dropout else c.reference,
            text_dropped=draws[6] < c.text_dropout,
            control="none" if draws[7] < c.control_dropout else "fine" if draws[7] >= fine else "raw",
            region=region,
            window=window_around(region, self.window, (draws[10], draws[11]), align),
        )

    def _arrays(self, row: Row) -> tuple[np.ndarray, ...]:
        """Image, mask, raw mask, control mask and reference of one row, cut and mirrored."""
        pictures = self.pictures
        whole = (array[row.index] for array in (pictures.images, pictures.masks, pictures.raw_masks))
        image, mask, raw = (mirrored(array[row.window], row.flips) for array in whole)
        control = mask if row.control == "fine" else raw
        return image, mask, raw, control, reference_image(image, raw, row.reference)


def latent_window(row: Row, size: tuple[int, int], factor: int) -> tuple[slice, slice]:
    """A row's window in latents of this size that are mirrored already."""
    spans = []
    for window, side, flipped in zip(row.window, size, (row.flips[1], row.flips[0]), strict=True):
        first, last = window.start // factor, window.stop // factor
        spans.append(slice(side - last, side - first) if flipped else slice(first, last))
    return spans[0], spans[1]


def mirrored(array: np.ndarray, flips: tuple[bool, bool]) -> np.ndarray:
    """An array (h, w, ...) mirrored left to right and top to bottom as asked."""
    array = array[:, ::-1] if flips[0] else array
    return array[::-1] if flips[1] else array
