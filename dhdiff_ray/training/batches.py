"""Real images to training batches: what the network sees of a pair (sections III-B and IV-B).

Decided: which samples, flips and drop-outs a row of a batch gets depends on (seed, step, row) alone, so that a resumed
run sees the batches it would have seen, on any number of workers. A normal image has an empty mask, an empty control
mask and no defect word.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.regions import reference_image, window_around
from dhdiff_ray.model.latents import to_mask, to_tensor
from dhdiff_ray.training.cache import LatentCache
from dhdiff_ray.training.examples import Examples, Row, Words, mirrored


@dataclass(frozen=True)
class Batch:
    """b pairs with their conditions; images in [-1, 1], masks of 0 and 1."""

    image: Tensor  # (b, 3, h, w)
    mask: Tensor  # (b, 1, h, w), the fine mask
    raw_mask: Tensor  # (b, 1, h, w)
    reference: Tensor  # (b, 3, h, w)
    control_mask: Tensor  # (b, 1, h, w)
    control_present: Tensor  # (b,), 0 or 1
    regions: Tensor
    """(n, 1, h, w), where each pair of the step is to be drawn, those of other workers too: the loss counts them."""
    tokens: Tensor  # (b, t), token ids
    defect_tokens: Tensor  # (b, t), 1 on the defect's words
    seed: int  # seed of the noise and the timesteps of the whole step
    rows: slice  # which of the step's n rows these b are
    ranks: int = 1  # workers that share the step
    latents: Tensor | None = None
    """(3, b, c, h', w'): image, mask and reference, where they were computed once and cached."""
    text: Tensor | None = None  # (b, t, k), the text embedding, where it was computed once and cached

    @property
    def region(self) -> Tensor:
        """(b, 1, h, w), where these pairs are to be drawn; outside it the latents stay clean. All ones: everywhere."""
        return self.regions[self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)})


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
    latents: Tensor | None

    def batch(self, words: Words | Examples, text: Tensor | None = None) -> Batch:
        """The batch, given the prompts' tokens and, where they were computed once, their embeddings."""
        tokens = torch.cat([words.tokens, words.empty_tokens[None]])  # -1 is the empty prompt
        defect_tokens = torch.cat([words.defect_tokens, torch.zeros_like(words.defect_tokens[:1])])
        return Batch(
            image=to_tensor(self.image),
            mask=to_mask(self.mask),
            raw_mask=to_mask(self.raw_mask),
            reference=to_tensor(self.reference),
            control_mask=to_mask(self.control_mask),
            control_present=torch.from_numpy(self.control_present),
            regions=to_mask(self.regions),
            tokens=tokens[self.words],
            defect_tokens=defect_tokens[self.words],
            seed=self.seed,
            rows=self.rows,
            ranks=self.ranks,
            latents=self.latents,
            text=text,
        )


class Cutter:
    """Draws the rows of a step from pictures and cuts them out.

    Args:
        config: the run's configuration.
        pictures: what to draw from.
        cache: their latents; None where they are computed in each step.
    """

    def __init__(self, config: Config, pictures: Pictures, cache: LatentCache | None = None) -> None:
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


class BatchSource:
    """The batches drawn from one category's training images.

    Args:
        config: the run's configuration.
        examples: what to draw from.
        cache: their latents and text embeddings, computed once; None computes them in each step.
    """

    def __init__(self, config: Config, examples: Examples, cache: LatentCache | None = None) -> None:
        self.examples, self.cache = examples, cache
        self.anomalies = examples.anomalies
        self.cutter = Cutter(config, examples, cache)

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's ``total`` rows; the union over ranks does not depend on their number.

        Where the rows do not divide by the ranks, some ranks have one row more than others.
        """
        cut = self.cutter.cut(step, total, rank, world_size)
        return cut.batch(self.examples, None if self.cache is None else self.cache.text(cut.words))
