"""Real images to training batches: what the network sees of a pair (sections III-B and IV-B).

Decided: which samples, flips and drop-outs a batch gets depends on (seed, step, rank) alone, so that a resumed run
sees the batches it would have seen. A normal image has an empty mask, an empty control mask and no defect word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import raw_mask, reference_image, window_around
from dhdiff_ray.model.latents import to_mask, to_tensor
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.records import Sample


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
    region: Tensor
    """(b, 1, h, w), where the pair is to be drawn; outside it the latents stay clean. All ones: everywhere."""
    tokens: Tensor
    """(b, t), token ids."""
    defect_tokens: Tensor
    """(b, t), 1 on the defect's words."""
    seed: int
    """Seed of the noise and the timesteps of this batch."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "seed"}
        return Batch(**tensors, seed=self.seed)


class BatchSource:
    """All training images of one category in memory, and the batches drawn from them."""

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

    def draw(self, step: int, size: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of the batch of one step; the union over ranks does not depend on their number."""
        rng = np.random.default_rng((self.seed, step))
        rows = [self._draw_one(rng) for _ in range(size * world_size)][rank * size : (rank + 1) * size]
        stacked = [np.stack(column) for column in zip(*(r[:5] for r in rows), strict=True)]
        image, mask, raw, reference, region = stacked
        present, tokens, marks = (torch.stack([r[i] for r in rows]) for i in (5, 6, 7))
        return Batch(
            image=to_tensor(image),
            mask=to_mask(mask),
            raw_mask=to_mask(raw),
            reference=to_tensor(reference),
            control_mask=to_mask(raw),
            control_present=present,
            region=to_mask(region),
            tokens=tokens,
            defect_tokens=marks,
            seed=int(rng.integers(2**62)) + rank,
        )

    def _draw_one(self, rng: np.random.Generator) -> tuple:
        c = self.config
        draws = rng.random(12)
        if self.normal and draws[0] < c.normal_fraction:
            i = self.normal[int(draws[1] * len(self.normal))]
        else:
            same = self.by_defect[int(draws[1] * len(self.by_defect))]
            i = same[int(draws[2] * len(same))]
        image, mask, raw = self.images[i], self.masks[i], self.raw_masks[i]
        if draws[8] >= c.clean_background:
            region = np.full_like(raw, 255)
        elif i in self.normal_set:  # a normal image is redrawn where an anomaly might have been
            region = self.raw_masks[self.anomalies[int(draws[9] * len(self.anomalies))]]
        else:
            region = raw
        window = window_around(region, self.window, (draws[10], draws[11]))
        image, mask, raw, region = image[window], mask[window], raw[window], region[window]
        if c.flips and draws[3] < 0.5:
            image, mask, raw, region = image[:, ::-1], mask[:, ::-1], raw[:, ::-1], region[:, ::-1]
        if c.flips and draws[4] < 0.5:
            image, mask, raw, region = image[::-1], mask[::-1], raw[::-1], region[::-1]
        shown = "none" if draws[5] < c.reference_dropout else c.reference
        reference = reference_image(image, raw, shown)
        text_dropped = draws[6] < c.text_dropout
        present = float(draws[7] >= c.control_dropout)
        tokens = self.empty_tokens if text_dropped else self.tokens[i]
        marks = torch.zeros_like(self.defect_tokens[i]) if text_dropped else self.defect_tokens[i]
        return image, mask, raw, reference, region, torch.tensor(present), tokens, marks
