"""Rows to training batches: what the network sees of a pair (sections III-B and IV-B).

A normal image has an empty mask, an empty control mask and no defect word.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.model.latents import to_mask, to_tensor
from dhdiff_ray.training.cache import LatentCache
from dhdiff_ray.training.cuts import Cut, Cutter
from dhdiff_ray.training.examples import Examples, Words


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


def batch_of(cut: Cut, words: Words | Examples, text: Tensor | None = None) -> Batch:
    """The batch of some rows, given the prompts' tokens and, where they were computed once, their embeddings."""
    tokens = torch.cat([words.tokens, words.empty_tokens[None]])  # -1 is the empty prompt
    defect_tokens = torch.cat([words.defect_tokens, torch.zeros_like(words.defect_tokens[:1])])
    return Batch(
        image=to_tensor(cut.image),
        mask=to_mask(cut.mask),
        raw_mask=to_mask(cut.raw_mask),
        reference=to_tensor(cut.reference),
        control_mask=to_mask(cut.control_mask),
        control_present=torch.from_numpy(cut.control_present),
        regions=to_mask(cut.regions),
        tokens=tokens[cut.words],
        defect_tokens=defect_tokens[cut.words],
        seed=cut.seed,
        rows=cut.rows,
        ranks=cut.ranks,
        latents=None if cut.latents is None else torch.as_tensor(cut.latents),
        text=text,
    )


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
        return batch_of(cut, self.examples, None if self.cache is None else self.cache.text(cut.words))
