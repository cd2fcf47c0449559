"""Real images to training batches: what the network sees of a pair (sections III-B and IV-B).

Decided: which samples, flips and drop-outs a row of a batch gets depends on (seed, step, row) alone, so that a resumed
run sees the batches it would have seen, on any number of workers. A normal image has an empty mask, an empty control
mask and no defect word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import raw_mask, reference_image, window_around
from dhdiff_ray.model.latents import to_mask, to_tensor
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.records import Sample

if TYPE_CHECKING:
    from dhdiff_ray.training.cache import LatentCache


@dataclass(frozen=True)
class Batch:
    """b pairs with their conditions; images in [-1, 1], masks of 0 and 1."""

    image: Tensor
    """(b, 3, h, w)."""
    mask: Tensor
    """(b, 1, h, w), the fine mask."""
    raw_mask: Tensor
    """(b, 1, h, w)."""
    reference: Tensor
    """(b, 3, h, w)."""
    control_mask: Tensor
    """(b, 1, h, w)."""
    control_present: Tensor
    """(b,), 0 or 1."""
    regions: Tensor
    """(n, 1, h, w), where each pair of the step is to be drawn, those of other workers too: the loss counts them."""
    tokens: Tensor
    """(b, t), token ids."""
    defect_tokens: Tensor
    """(b, t), 1 on the defect's words."""
    seed: int
    """Seed of the noise and the timesteps of the whole step."""
    rows: slice
    """Which of the step's n rows these b are."""
    ranks: int = 1
    """Workers that share the step."""
    latents: Tensor | None = None
    """(3, b, c, h', w'): image, mask and reference, where they were computed once and cached."""
    text: Tensor | None = None
    """(b, t, k), the text embedding, where it was computed once and cached."""

    @property
    def region(self) -> Tensor:
        """(b, 1, h, w), where these pairs are to be drawn; outside it the latents stay clean. All ones: everywhere."""
        return self.regions[self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()}
        return Batch(**moved)


@dataclass(frozen=True)
class Drawn:
    """One row of a batch before it becomes tensors."""

    index: int
    flips: tuple[bool, bool]
    """Mirrored left to right, top to bottom."""
    reference: str
    """What the reference shows; ``none`` where it was dropped."""
    text_dropped: bool
    control: Literal["none", "raw", "fine"]
    """What the control mask shows: nothing (dropped), the defect's cells, or its outline."""
    region: np.ndarray
    """uint8 (h, w), where the pair is to be drawn, before flips."""
    window: tuple[slice, slice]


class BatchSource:
    """All training images of one category in memory, and the batches drawn from them."""

    cache: LatentCache | None = None
    """Latents and text embeddings that were computed once; None computes them in each step."""
    align: int = 1
    """Windows begin at multiples of so many pixels: those of a cached latent's positions."""

    def __init__(
        self, config: Config, samples: Sequence[Sample], images: np.ndarray, masks: np.ndarray, tokenizer: Any
    ) -> None:
        self.config = config.train
        self.window = config.train.window or config.data.resolution
        self.seed = config.run.seed
        self.images = images  # uint8 (n, h, w, 3)
        self.masks = masks  # uint8 (n, h, w)
        self.raw_masks = np.stack([raw_mask(m, config.data.grid) for m in masks])
        self.tokens = tokenize(tokenizer, [prompt(s.category, s.defect) for s in samples])
        words = ["" if s.is_good else defect_words(s.defect) for s in samples]
        self.defect_tokens = mark_defect_tokens(tokenizer, self.tokens, words)
        self.empty_tokens = tokenize(tokenizer, [""])[0]
        self.normal = [i for i, s in enumerate(samples) if s.is_good]
        self.by_defect = [
            [i for i, s in enumerate(samples) if s.defect == d]
            for d in sorted({s.defect for s in samples if not s.is_good})
        ]
        self.normal_set = set(self.normal)
        self.anomalies = [i for same in self.by_defect for i in same]
        if not self.by_defect:
            raise ValueError("there is no anomaly to train on; check the split and --category")

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's ``total`` rows; the union over ranks does not depend on their number.

        Where the rows do not divide by the ranks, some ranks have one row more than others.
        """
        rng = np.random.default_rng((self.seed, step))
        every = [self._draw_one(rng) for _ in range(total)]
        own = slice(rank * total // world_size, (rank + 1) * total // world_size)
        rows = every[own]
        arrays = [self._arrays(row) for row in rows]
        image, mask, raw, control, reference = (np.stack(column) for column in zip(*arrays, strict=True))
        blank = torch.zeros_like(self.defect_tokens[0])
        return Batch(
            image=to_tensor(image),
            mask=to_mask(mask),
            raw_mask=to_mask(raw),
            reference=to_tensor(reference),
            control_mask=to_mask(control),
            control_present=torch.tensor([float(row.control != "none") for row in rows]),
            regions=to_mask(np.stack([mirrored(row.region[row.window], row.flips) for row in every])),
            tokens=torch.stack([self.empty_tokens if r.text_dropped else self.tokens[r.index] for r in rows]),
            defect_tokens=torch.stack([blank if r.text_dropped else self.defect_tokens[r.index] for r in rows]),
            seed=int(rng.integers(2**62)),
            rows=own,
            ranks=world_size,
            latents=None if self.cache is None else self.cache.latents(rows),
            text=None if self.cache is None else self.cache.text(rows),
        )

    def _draw_one(self, rng: np.random.Generator) -> Drawn:
        c = self.config
        draws = rng.random(12)
        if self.normal and draws[0] < c.normal_fraction:
            i = self.normal[int(draws[1] * len(self.normal))]
        else:
            same = self.by_defect[int(draws[1] * len(self.by_defect))]
            i = same[int(draws[2] * len(same))]
        raw = self.raw_masks[i]
        if draws[8] >= c.clean_background:
            region = np.full_like(raw, 255)
        elif i in self.normal_set:  # a normal image is redrawn where an anomaly might have been
            region = self.raw_masks[self.anomalies[int(draws[9] * len(self.anomalies))]]
        else:
            region = raw
        fine = 1 - c.fine_control * (1 - c.control_dropout)
        return Drawn(
            index=i,
            flips=(c.flips and draws[3] < 0.5, c.flips and draws[4] < 0.5),
            reference="none" if draws[5] < c.reference_dropout else c.reference,
            text_dropped=draws[6] < c.text_dropout,
            control="none" if draws[7] < c.control_dropout else "fine" if draws[7] >= fine else "raw",
            region=region,
            window=window_around(region, self.window, (draws[10], draws[11]), self.align),
        )

    def _arrays(self, row: Drawn) -> tuple[np.ndarray, ...]:
        """Image, mask, raw mask, control mask and reference of one row, cut and mirrored."""
        i, w = row.index, row.window
        cut = (self.images[i][w], self.masks[i][w], self.raw_masks[i][w])
        image, mask, raw = (mirrored(array, row.flips) for array in cut)
        control = mask if row.control == "fine" else raw
        return image, mask, raw, control, reference_image(image, raw, row.reference)  # pyright: ignore[reportArgumentType]


def mirrored(array: np.ndarray, flips: tuple[bool, bool]) -> np.ndarray:
    """An array (h, w, ...) mirrored left to right and top to bottom as asked."""
    array = array[:, ::-1] if flips[0] else array
    return array[::-1] if flips[1] else array
