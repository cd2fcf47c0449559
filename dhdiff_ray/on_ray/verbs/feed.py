"""A foundation's pool on a cluster: written by Ray Data, and read through Ray Data into each train worker.

Not in the paper. Decided: a shard is a unit like any other (see ``on_ray/pool.py``); in training every worker streams
the eras of its own rank, in order and a little ahead, from tasks that ask for no core, so that a cluster full of
workers is fed as well. A reader that dies is begun again and gives the same bytes; it needs no torch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from ray.exceptions import RayTaskError

from dhdiff_ray.on_ray.events import Hub
from dhdiff_ray.on_ray.pool import TRIES, map_units
from dhdiff_ray.on_ray.ray_private import finished_rows
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.eras import Eras
from dhdiff_ray.training.pool import ShardFacts, ShardPlan, ShardWriter, has_latents, write_pool

BLOCK_BYTES = 4 * 2**20
"""Bytes of an era that are handed over at once, about."""
AHEAD_BYTES = 128 * 2**20
"""Most bytes that wait for one worker."""


def write(run: Run, hub: Hub) -> None:
    """Write the pool's shards with all the cluster has; those that are there are kept.

    Raises:
        ValueError: an image cannot be read; its source is named.
    """
    t, about = run.config.train, {"verb": "train", "category": "foundation, images"}
    arguments: dict[str, Any] = {"run": run}
    size: dict[str, Any] = {"cpus": 1}
    if has_latents(run.config):
        from dhdiff_ray.training.pooled import autoencoder_of

        arguments["build_autoencoder"] = partial(autoencoder_of, run)
        size = {"cpus": t.cpus_per_worker, "gpus": min(1.0, t.gpus_per_worker)}

    def mapped(plans: Any) -> Iterator[ShardFacts]:
        for at, facts, error in map_units(plans, ShardWriter, arguments, **size):
            if error:
                plan: ShardPlan = plans[at]
                raise ValueError(f"{error} (while writing shard {plan.at} of the pool)")
            yield facts

    write_pool(run, mapped, lambda **event: hub.emit.remote({**about, **event}))


def stream(eras: Eras, start: int, rank: int, world_size: int) -> Iterator[dict[str, Any]]:
    """The rows of one rank, step by step in order: ``step``, and ``cut``, a pickled :class:`Cut`.

    Raises:
        ValueError: a shard is gone or damaged; it is named.
    """
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
        cast(Any, reader), num_cpus=0, compute=TaskPoolStrategy(size=1), max_retries=TRIES
    )
    try:
        yield from finished_rows(rows)
    except RayTaskError as error:  # Ray's words about retries would hide which shard it is
        cause = error.cause
        raise (ValueError(str(cause).splitlines()[0]) if isinstance(cause, ValueError) else error) from None


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
