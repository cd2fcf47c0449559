"""A foundation from its pool: built from a bounded sample, and trained in this process without Ray (not in the paper).

Decided: what is fitted to images (latents' scales, texture, how defects look) is fitted to some hundred of them, evenly
spaced over all sources; the pool itself is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from dhdiff_ray.config import FOUNDATION_NAME, Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.latents import Autoencoder
from dhdiff_ray.records import Sample
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.sources import Part, foundation_facts, lay_out_sources, parts_of
from dhdiff_ray.training.batches import Batch, BatchSource, batch_of
from dhdiff_ray.training.build import Parts, build, fit_look
from dhdiff_ray.training.checkpoint import publish
from dhdiff_ray.training.eras import Eras
from dhdiff_ray.training.examples import Examples, Words
from dhdiff_ray.training.loop import PlainEngine, fit, new_average
from dhdiff_ray.training.pool import ShardWriter, write_pool

ANOMALIES, NORMAL = 256, 64
"""Images that what is fitted is fitted to, beside one for each prompt."""
Pictures = tuple[list[Sample], np.ndarray, np.ndarray]
"""Samples, their images uint8 (n, h, w, 3) and their masks uint8 (n, h, w)."""


def train_foundation(run: Run, on_step: Callable[[int, dict[str, float]], None] | None = None) -> None:
    """Train the foundation of a run with sources from beginning to end in this process, and publish it.

    Args:
        run: its configuration has sources; its folder gets what a job's would, but no checkpoints.
        on_step: called with the steps done and the log of the step.

    Raises:
        ValueError: a source cannot be read; it is named.
    """
    config, device = run.config, "cuda" if torch.cuda.is_available() else "cpu"
    lay_out_sources(run, lambda *_, **__: None)
    pool = write_pool(run, partial(map, ShardWriter(run, partial(autoencoder_of, run))))
    sources = parts_of(run)
    pictures = read_fitted(config, sources)
    parts = build_foundation(config, pictures)
    parts.objective.to(device)
    source = PoolSource(Eras(pool, config), prepare(parts, config, pictures, pool.prompts, device))
    pool.check_autoencoder(parts.vae)
    average = new_average(parts.objective, config.train)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=average, on_step=on_step)
    publish(parts, average, run, FOUNDATION_NAME, foundation_facts(run, pool.images))


class PoolSource:
    """The batches of a foundation's training, read in this process: one era at a time.

    Args:
        eras: what is drawn from.
        words: the tokens of the pool's prompts.
    """

    def __init__(self, eras: Eras, words: Words) -> None:
        self.eras, self.words = eras, words
        self._era, self._cutter = -1, None

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's rows; the union over ranks does not depend on their number."""
        if self._cutter is None or self._era != self.eras.of(step):
            self._cutter = None  # before the next is read: never two eras' shards
            self._era, self._cutter = self.eras.of(step), self.eras.cutter(self.eras.of(step))
        return batch_of(self._cutter.cut(step, total, rank, world_size), self.words)


def fitted_samples(parts: Sequence[Part]) -> list[Sample]:
    """Some training images, evenly spaced over all sources, and one of each category and defect, for its words."""
    every = [sample for part in parts for sample in part.split.train]
    chosen: dict[tuple[str, str], Sample] = {}
    for sample in every:
        chosen.setdefault((sample.category, sample.defect), sample)
    kept = {id(sample) for sample in chosen.values()}
    for of_kind, count in (([s for s in every if not s.is_good], ANOMALIES), ([s for s in every if s.is_good], NORMAL)):
        kept |= {id(sample) for sample in of_kind[:: -(-len(of_kind) // count)]}
    return [sample for sample in every if id(sample) in kept]


def read_fitted(config: Config, parts: Sequence[Part], warn: Callable[[str], None] = lambda _: None) -> Pictures:
    """The images of :func:`fitted_samples`.

    Raises:
        ValueError: one cannot be read and ``data.skip_bad`` is off.
    """
    return read_many(fitted_samples(parts), config.data.resolution, config.data.skip_bad, warn)


def build_foundation(config: Config, pictures: Pictures) -> Parts:
    """A new model; published, it belongs to no category and wants a whole prompt."""
    parts = build(config, *pictures[:2])
    defaults = {name: value for name, value in parts.defaults.items() if name != "prompt"}
    return replace(parts, defaults={**defaults, "category": FOUNDATION_NAME})


def prepare(
    parts: Parts, config: Config, pictures: Pictures, prompts: Sequence[tuple[str, str]], device: torch.device | str
) -> Words:
    """Move what is frozen to the device, fit how defects look, and turn all prompts into tokens."""
    parts.objective.frozen_to(device)
    if parts.objective.unet.look is not None:
        fit_look(parts, BatchSource(config, Examples.of(config, *pictures, parts.tokenizer)))
    return Words.of(parts.tokenizer, prompts)


def autoencoder_of(run: Run) -> tuple[Autoencoder, str]:
    """What encodes a run's shards, and where it lies: for processes that write them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = build_foundation(run.config, read_fitted(run.config, parts_of(run))).vae
    vae.to(device)  # pyright: ignore[reportArgumentType]  diffusers' own signature
    return vae, device
