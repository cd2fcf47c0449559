"""A table of runs, such as Tables VIII and IX: each row trained, sampled and judged alike (section IV-E).

One cell is one row, seed and category: a Ray task that trains the model, makes pairs, trains the paper's localiser on
them and tests it, so that as many cells run side by side as the cluster has room for. Decided: a cell trains in plain
PyTorch inside its task, which gives the weights DeepSpeed gives on one worker without its start-up; the localiser
trained on real pairs is shared by all rows of a seed and is the oracle of alignment; finished cells are not run again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.exceptions import RayError

from dhdiff_ray.config import AblationConfig, Config
from dhdiff_ray.config.load import with_values
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import reason
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.pairs.units import CategoryPairs
from dhdiff_ray.pairs.writer import PairWriter, write_card
from dhdiff_ray.report.ablation import REAL, as_markdown, summarise
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import is_trained

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline

RESULT = "table.json"
PAGE = "table.md"


def main(config: Config, resume: bool = False) -> int:
    """Run every cell that is not done; writes the table into the recipe's own run; 0, or 1 if a cell failed."""
    recipe = Run(config)
    if not resume:
        recipe.refuse_existing()
    with Events(recipe.folder, "ablate") as events, lease(recipe.folder):
        samples = recipe.scan(events.emit)
        recipe.write_config()
        names = (REAL, *(row.name for row in config.ablation.rows))
        runs = {(row, seed): Run(row_config(config, row, seed)) for seed in config.ablation.seeds for row in names}
        for run in runs.values():
            run.begin(samples)
        categories = next(iter(runs.values())).categories
        with events.hub(every=0.5) as hub:
            failed = _run_cells(runs, categories, hub, events)
        cells = [cell for run in runs.values() for category in categories if (cell := _finished(run, category))]
        table = summarise(cells, config.ablation)
        recipe.folder.write_json(RESULT, {"conditions": conditions(config), "rows": table, "cells": cells})
        recipe.folder.write_bytes(PAGE, as_markdown(table, config.ablation, conditions(config)).encode())
    return 1 if failed else 0


def row_config(config: Config, row: str, seed: int) -> Config:
    """The configuration of one row and seed: a run of its own beside the recipe's.

    Raises:
        ConfigError: the row sets a key that is not there.
    """
    given = {r.name: r.set for r in config.ablation.rows}.get(row, {})
    plain = config.model_copy(update={"ablation": AblationConfig()})
    return with_values(plain, {**given, "run.name": f"{config.run.name}-{row}-s{seed}", "run.seed": seed}, f"row {row}")


def conditions(config: Config) -> dict[str, Any]:
    """Conditions shared by all rows, for the report."""
    t, s, d = config.train, config.synthesize, config.detect
    return {
        "dataset": config.data.dataset,
        "resolution": config.data.resolution,
        "training steps": t.steps,
        "batch": t.global_batch_size,
        "pairs per defect": s.pairs_per_defect,
        "sampling steps": s.steps,
        "detector steps": d.steps,
        "seeds": list(config.ablation.seeds),
        "config_digest": config.digest(),
    }


def model_cell(run: Run, category: str, hub: Hub, teller: Teller, oracle: bytes) -> dict[str, Any]:
    """Train a row's model for one category, make its pairs, judge them.

    Args:
        run: of the row and seed; it is laid out.
        category: which one.
        hub: where the detector's progress goes.
        teller: where the training's progress and warnings go.
        oracle: the localiser trained on real pairs, as safetensors.
    """
    from dhdiff_ray.detector.evaluate import alignment
    from dhdiff_ray.detector.unet import from_bytes

    seconds: dict[str, float] = {}
    with _timed(seconds, "train" if not is_trained(run.folder, category) else "load"):
        pipeline, facts = trained(run, category, teller)
    with _timed(seconds, "synthesize"):
        requests = plan(run.config, run.split, category)
        units = shards(requests, run.config.synthesize.shard_size)
        pairs = [pair for unit in units for pair in make(unit, pipeline, run.config, run.split.train)]
    writer = PairWriter(run.folder)
    for pair in pairs:
        writer.write_pair(pair)
    CategoryPairs({"category": category, **facts}, requests, []).finish(run)
    write_card(run.folder)
    images, masks = np.stack([p.image for p in pairs]), np.stack([p.mask for p in pairs])
    aligned = alignment(from_bytes(oracle), images, masks)
    with _timed(seconds, "detect"):
        figures = _examined(run, category, "synthetic", hub)
    return {**figures, **{k: aligned[k] for k in ("iou", "ap", "nonempty")}, "seconds": seconds, **facts}


def trained(run: Run, category: str, teller: Teller) -> tuple[DHDiffPipeline, dict[str, Any]]:
    """A pipeline trained in this process and published into the run, and the marker's facts."""
    from dhdiff_ray.pairs.published import open_model
    from dhdiff_ray.training.loop import train_category

    facts = train_category(run, category, teller.warn, lambda done, log: teller(done, log["loss"]))
    with run.folder.fetched(f"models/{category}") as model:
        return open_model(model, run.config), facts


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Records the seconds that its block took."""
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)


def _examined(run: Run, category: str, kind: str, hub: Hub) -> dict[str, Any]:
    """The figures of one detector, trained and tested on one thread."""
    import torch

    torch.set_num_threads(1)
    teller = Teller(hub, "detect", f"{category}, {kind}", run.config.detect.steps)
    figures = Detectors(run, category, teller).examined(kind)
    return {name: figures[name] for name in ("pixel_ap", "pixel_auroc", "image_auroc")}


def _file(category: str) -> str:
    return f"cells/{category}.json"


def _finished(run: Run, category: str) -> dict[str, Any] | None:
    """A finished cell, if it was made under these conditions."""
    cell = run.folder.facts(_file(category))
    return cell if cell.get("config_digest") == run.config.digest() else None


def _cell(run: Run, row: str, category: str, hub: Hub, oracle: bytes | None) -> bytes | None:
    """The task: one cell, written into its run; the real cell answers with its localiser."""
    import torch

    config, seed = run.config, run.config.run.seed
    torch.set_num_threads(config.train.cpus_per_worker)
    torch.set_flush_denormal(True)
    if _finished(run, category) is None:
        teller = Teller(hub, "ablate", f"{row} s{seed} {category}", config.train.steps)
        real = oracle is None
        figures = _examined(run, category, "real", hub) if real else model_cell(run, category, hub, teller, oracle)
        head = {"row": row, "seed": seed, "category": category, "config_digest": config.digest()}
        run.folder.write_json(_file(category), {**head, **figures})
    return run.folder.read_bytes(f"detectors/{category}/real.safetensors") if oracle is None else None


def _run_cells(runs: dict[tuple[str, int], Run], categories: list[str], hub: Hub, events: Events) -> list[str]:
    """All cells, seed after seed, so that an interrupted table has whole seeds; returns what failed."""
    t = next(iter(runs.values())).config.train
    task: Any = ray.remote(num_cpus=t.cpus_per_worker, num_gpus=t.gpus_per_worker, max_retries=2)(_cell)
    oracles: dict[tuple[int, str], ray.ObjectRef] = {}
    names: dict[ray.ObjectRef, str] = {}
    for (row, seed), run in runs.items():
        for category in categories:
            oracle = None if row == REAL else oracles[seed, category]
            reference = task.remote(run, row, category, hub, oracle)
            names[reference] = f"{row} s{seed} {category}"
            if row == REAL:
                oracles[seed, category] = reference
    waiting, failed = list(names), []
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(ready)
        except RayError as error:
            failed.append(names[ready])
            events.emit("failed", category=names[ready], message=reason(error), trace=str(error))
        events.emit("progress", category="cells", done=len(names) - len(waiting), total=len(names))
    return failed
