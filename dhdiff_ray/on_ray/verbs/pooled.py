"""A foundation's train workers: each streams the batches of its own rank, and holds no pool.

Not in the paper. Only workers import this module; what feeds them is in ``feed.py``.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from dhdiff_ray.on_ray.verbs.feed import stream
from dhdiff_ray.on_ray.verbs.train_worker import Pictures, Progress, Worker
from dhdiff_ray.run.sources import foundation_facts, parts_of
from dhdiff_ray.training.batches import Batch, batch_of
from dhdiff_ray.training.build import Parts
from dhdiff_ray.training.eras import Eras
from dhdiff_ray.training.examples import Words
from dhdiff_ray.training.pool import read_pool
from dhdiff_ray.training.pooled import build_foundation, prepare, read_fitted


class PoolWorker(Worker):
    """A worker that keeps no images but those that latents and texture are fitted to."""

    def read(self) -> Pictures:
        """Some images of every source; their splits were checked when the run was laid out."""
        return read_fitted(self.run.config, parts_of(self.run), self.warn)

    def build(self, pictures: Pictures) -> Parts:
        """The model as it starts."""
        return build_foundation(self.run.config, pictures)

    def encode(self, parts: Parts, pictures: Pictures, device: Any, progress: Progress) -> RayFeed:
        """The stream of this rank's batches."""
        config, pool = self.run.config, read_pool(self.run)
        pool.check_autoencoder(parts.vae)
        return RayFeed(Eras(pool, config), prepare(parts, config, pictures, pool.prompts, device))

    def facts(self, pictures: Pictures) -> dict[str, Any]:
        """What is recorded beside the model."""
        return foundation_facts(self.run, read_pool(self.run).images)


class RayFeed:
    """The batches of one rank, streamed from readers elsewhere; steps are asked for in order.

    Args:
        eras: what is drawn from.
        words: the tokens of the pool's prompts.
    """

    def __init__(self, eras: Eras, words: Words) -> None:
        self.eras, self.words = eras, words
        self._rows: Iterator[dict[str, Any]] | None = None

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's rows; the first step that is asked for opens the stream."""
        if self._rows is None:
            self._rows = stream(self.eras, step, rank, world_size)
        row = next(self._rows)
        assert row["step"] == step, f"step {row['step']} came where {step} was due"
        return batch_of(pickle.loads(row["cut"]), self.words)
