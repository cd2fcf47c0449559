"""A foundation on a cluster: its pool written by Ray Data, and read through Ray Data into each train worker.

Not in the paper. Decided: a shard is a unit like any other (see ``on_ray/pool.py``); in training every worker streams
the eras of its own rank, in order and a little ahead, from tasks that ask for no core, so that a cluster full of
workers is fed as well. A reader that dies is begun again by Ray and gives the same bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from dhdiff_ray.on_ray.events import Hub
from dhdiff_ray.on_ray.pool import map_units
from dhdiff_ray.on_ray.ray_private import finished_rows
from dhdiff_ray.on_ray.verbs.train_worker import Pictures, Progress, Worker
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.sources import foundation_facts, parts_of
from dhdiff_ray.training.batches import Batch
from dhdiff_ray.training.build import Parts
from dhdiff_ray.training.eras import Eras
from dhdiff_ray.training.examples import Words
from dhdiff_ray.training.pool import ShardFacts, ShardPlan, ShardWriter, has_latents, read_pool, write_pool
from dhdiff_ray.training.pooled import autoencoder_of, build_foundation, prepare, read_fitted

BLOCK_BYTES = 4 * 2**20
"""About so much of an era is handed over at once."""
AHEAD_BYTES = 128 * 2**20
"""Most that waits for one worker."""


def write(run: Run, hub: Hub) -> None:
    """Write the pool's shards with all the cluster has; those that are there are kept.

    Raises:
        ValueError: an image cannot be read; its source is named.
    """
    config, about = run.config, {"verb": "train", "category": "foundation, images"}
    gpus = min(1.0, config.train.gpus_per_worker) if has_latents(config) else 0

    def mapped(plans: Any) -> Iterator[ShardFacts]:
        arguments = {"run": run, "build_autoencoder": partial(autoencoder_of, run)}
        cores = config.train.cpus_per_worker if has_latents(config) else 1
        for at, facts, error in map_units(plans, ShardWriter, arguments, cpus=cores, gpus=gpus):
            if error:
                plan: ShardPlan = plans[at]
                raise ValueError(f"{error} (while writing shard {plan.at} of the pool)")
            yield facts

    write_pool(run, mapped, lambda **event: hub.emit.remote({**about, **event}))


class PoolWorker(Worker):
    """A worker that holds no images but those that something is fitted to."""

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
        """What is written beside the model."""
        return foundation_facts(parts_of(self.run), read_pool(self.run).images)


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
        return pickle.loads(row["cut"]).batch(self.words)


def stream(eras: Eras, start: int, rank: int, world_size: int) -> Iterator[dict[str, Any]]:
    """The rows of one rank, step by step in order: ``step``, and ``cut``, a pickled :class:`Cut`."""
    from ray.data import DataContext, ExecutionResources, TaskPoolStrategy, from_items

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=AHEAD_BYTES)
    context.target_max_block_size = BLOCK_BYTES
    steps = [eras.span(era) for era in range(eras.of(start), eras.of(eras.config.train.steps - 1) + 1)]
    items = [{"first": max(start, span.start), "end": span.stop} for span in steps]
    reader: Callable[..., Any] = Reader(eras, rank, world_size)
    rows = from_items(items, override_num_blocks=len(items)).flat_map(
        cast(Any, reader), num_cpus=0, compute=TaskPoolStrategy(size=1)
    )
    return finished_rows(rows)


@dataclass(frozen=True)
class Reader:
    """Reads the shards of an era and cuts one rank's rows of its steps; holds nothing between two eras."""

    eras: Eras
    rank: int
    world_size: int

    def __call__(self, item: dict[str, int]) -> Iterator[dict[str, Any]]:
        """The steps of an era, one after the other."""
        steps = range(item["first"], item["end"])
        for step, cut in zip(steps, self.eras.cuts(steps, self.rank, self.world_size), strict=True):
            yield {"step": step, "cut": pickle.dumps(cut)}
