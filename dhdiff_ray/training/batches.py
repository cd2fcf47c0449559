"""Real images to training batches: what the network sees of a pair (sections III-B and IV-B).

Decided: which samples, flips and drop-outs a row of a batch gets depends on (seed, step, row) alone, so that a resumed
run sees the batches it would have seen, on any number of workers. A normal image has an empty mask, an empty control
mask and no defect word.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.regions import reference_image, window_around
from dhdiff_ray.model.latents import to_mask, to_tensor
from dhdiff_ray.training.cache import LatentCache
from dhdiff_ray.training.examples import Examples, Row, mirrored


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


class BatchSource:
    """The batches drawn from one category's training images.

    Args:
        config: the run's configuration.
        examples: what to draw from.
        cache: their latents and text embeddings, computed once; None computes them in each step.
    """

    def __init__(self, config: Config, examples: Examples, cache: LatentCache | None = None) -> None:
        self.config, self.examples, self.cache = config.train, examples, cache
        self.window = config.train.window or config.data.resolution
        self.seed = config.run.seed
        self.normal, self.anomalies = set(examples.normal), examples.anomalies

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's ``total`` rows; the union over ranks does not depend on their number.

        Where the rows do not divide by the ranks, some ranks have one row more than others.
        """
        rng = np.random.default_rng((self.seed, step))
        every = [self._draw_one(rng) for _ in range(total)]
        share = slice(rank * total // world_size, (rank + 1) * total // world_size)
        rows, examples = every[share], self.examples
        arrays = [self._arrays(row) for row in rows]
        image, mask, raw, control, reference = (np.stack(column) for column in zip(*arrays, strict=True))
        blank = torch.zeros_like(examples.defect_tokens[0])
        return Batch(
            image=to_tensor(image),
            mask=to_mask(mask),
            raw_mask=to_mask(raw),
            reference=to_tensor(reference),
            control_mask=to_mask(control),
            control_present=torch.tensor([float(row.control != "none") for row in rows]),
            regions=to_mask(np.stack([mirrored(row.region[row.window], row.flips) for row in every])),
            tokens=torch.stack([examples.empty_tokens if r.text_dropped else examples.tokens[r.index] for r in rows]),
            defect_tokens=torch.stack([blank if r.text_dropped else examples.defect_tokens[r.index] for r in rows]),
            seed=int(rng.integers(2**62)),
            rows=share,
            ranks=world_size,
            latents=None if self.cache is None else self.cache.latents(rows),
            text=None if self.cache is None else self.cache.text(rows),
        )

    def _draw_one(self, rng: np.random.Generator) -> Row:
        c, examples = self.config, self.examples
        draws = rng.random(12)
        if examples.normal and draws[0] < c.normal_fraction:
            i = examples.normal[int(draws[1] * len(examples.normal))]
        else:
            same = examples.by_defect[int(draws[1] * len(examples.by_defect))]
            i = same[int(draws[2] * len(same))]
        raw = examples.raw_masks[i]
        if draws[8] >= c.clean_background:
            region = np.full_like(raw, 255)
        elif i in self.normal:  # a normal image is redrawn where an anomaly might have been
            region = examples.raw_masks[self.anomalies[int(draws[9] * len(self.anomalies))]]
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
        examples = self.examples
        whole = (array[row.index] for array in (examples.images, examples.masks, examples.raw_masks))
        image, mask, raw = (mirrored(array[row.window], row.flips) for array in whole)
        control = mask if row.control == "fine" else raw
        return image, mask, raw, control, reference_image(image, raw, row.reference)
