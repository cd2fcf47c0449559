"""A table of runs, such as Tables VIII and IX: each row trained, sampled and judged alike (section IV-E).

One cell is one row, seed and category: a Ray task that trains the model, makes pairs, trains the paper's localiser on
them and tests it, so that as many cells run side by side as the cluster has room for. Decided: a cell trains in plain
PyTorch inside its task, which gives the weights DeepSpeed gives on one worker without its start-up; the localiser
trained on real pairs is shared by all rows of a seed and is the oracle of alignment; finished cells are not run again.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from dhdiff_ray.config import AblationConfig, Config
from dhdiff_ray.config.load import with_values
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.split import Split, split_as
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.pool import reason
from dhdiff_ray.on_ray.verbs.detect import Teller, examine
from dhdiff_ray.on_ray.verbs.synthesize import finish
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.pairs.writer import PairWriter
from dhdiff_ray.records import Sample
from dhdiff_ray.report.ablation import REAL, as_markdown, summarise
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import about_dataset, category_names, published_facts, run_folder, scan
from dhdiff_ray.training.checkpoint import is_trained, model_facts

RESULT = "table.json"
PAGE = "table.md"


def main(config: Config, resume: bool = False) -> int:
    """Run every cell that is not done; writes the table into the recipe's own run; 0, or 1 if a cell failed."""
    folder = run_folder(config)
    if folder.exists("config.json") and not resume:
        raise ValueError(f"the run {folder.uri} exists; add --resume to go on with it, or choose another --run")
    with Events(folder, "ablate") as events, lease(folder):
        samples = scan(config, events.emit)
        folder.write_json("config.json", config.model_dump(mode="json"))
        keys = [
            (row, seed) for seed in config.ablation.seeds for row in (REAL, *(r.name for r in config.ablation.rows))
        ]
        runs = {(row, seed): _prepare(config, row, seed, samples) for row, seed in keys}
        categories = category_names(config, Split.from_json(run_folder(runs[keys[0]]).read_json("split.json")))
        with events.hub(every=0.5) as hub:
            failed = _run_cells(runs, categories, hub, events)
        cells = [c for (row, seed), own in runs.items() for k in categories if (c := _known(own, row, seed, k))]
        table = summarise(cells, config.ablation)
        folder.write_json(RESULT, {"conditions": conditions(config), "rows": table, "cells": cells})
        folder.write_bytes(PAGE, as_markdown(table, config.ablation, conditions(config)).encode())
    return 1 if failed else 0


def row_config(config: Config, row: str, seed: int) -> Config:
    """The configuration of one row and seed: a run of its own beside the recipe's.

    Raises:
        ConfigError: the row sets a key that is not there.
    """
    given = {r.name: r.set for r in config.ablation.rows}.get(row, {})
    own = config.model_copy(update={"ablation": AblationConfig()})
    return with_values(own, {**given, "run.name": f"{config.run.name}-{row}-s{seed}", "run.seed": seed}, f"row {row}")


def conditions(config: Config) -> dict[str, Any]:
    """What every row has in common, for the page."""
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


def real_cell(config: Config, category: str, hub: Any) -> dict[str, Any]:
    """The localiser trained on real pairs, and how good it is on the held-out half."""
    found = examine(config.model_dump(mode="json"), category, "real", hub)
    return {name: found[name] for name in ("pixel_ap", "pixel_auroc", "image_auroc")}


def model_cell(config: Config, category: str, hub: Any, tell: Teller, oracle: bytes) -> dict[str, Any]:
    """Train a row's model for one category, make its pairs, judge them.

    Args:
        config: of the row and seed; its run holds ``split.json``.
        category: which one.
        hub: where the detector's progress goes.
        tell: where the training's progress and warnings go.
        oracle: the localiser trained on real pairs, as safetensors.
    """
    from dhdiff_ray.detector.evaluate import alignment
    from dhdiff_ray.detector.unet import from_bytes

    folder = run_folder(config)
    split = Split.from_json(folder.read_json("split.json"))
    seconds: dict[str, float] = {}
    with _Timed(seconds, "train" if not is_trained(folder, category) else "load"):
        pipeline, facts = trained(config, split.category(category), category, tell)
    with _Timed(seconds, "synthesize"):
        requests = plan(config, split, category)
        units = shards(requests, config.synthesize.shard_size)
        pairs = [pair for unit in units for pair in make(unit, pipeline, config, split.train)]
    writer = PairWriter(folder)
    for pair in pairs:
        writer.write_pair(pair)
    finish(config, folder, split, requests, {"category": category, **facts})
    images, masks = np.stack([p.image for p in pairs]), np.stack([p.mask for p in pairs])
    aligned = alignment(from_bytes(oracle), images, masks)
    with _Timed(seconds, "detect"):
        found = examine(config.model_dump(mode="json"), category, "synthetic", hub)
    figures = {name: found[name] for name in ("pixel_ap", "pixel_auroc", "image_auroc")}
    return {**figures, **{k: aligned[k] for k in ("iou", "ap", "nonempty")}, "seconds": seconds, **facts}


def trained(config: Config, split: Split, category: str, tell: Teller) -> tuple[Any, dict[str, Any]]:
    """A pipeline trained in this process and published into the run, and the marker's facts."""
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.training.build import build, build_source, fit_look
    from dhdiff_ray.training.checkpoint import publish
    from dhdiff_ray.training.loop import PlainEngine, fit, new_average

    folder = run_folder(config)
    if not is_trained(folder, category):
        samples, images, masks = read_many(split.train, config.data.resolution, config.data.skip_bad, tell.warn)
        parts = build(config, samples, images)
        source = build_source(parts, config, samples, images, masks, folder=folder, category=category)
        fit_look(parts, source)
        average = new_average(parts.objective, config.train)
        engine = PlainEngine(parts.objective, config.train)
        last = fit(engine, source, config.train, average=average, on_step=lambda done, log: tell(done, log["loss"]))
        weights = sum(p.numel() for p in parts.objective.parameters())
        facts = {**published_facts(split, len(samples)), "parameters": weights, "last_loss": last["loss"]}
        publish(parts, average, folder, category, config, facts)
    known = model_facts(folder, category)
    pipeline = DHDiffPipeline.from_pretrained(folder.local(f"models/{category}"))
    return pipeline, {name: known[name] for name in ("weights_sha256", "parameters", "last_loss")}


class _Timed:
    """Notes the seconds its block took."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        self.seconds[self.name] = round(time.monotonic() - self.start, 1)


def _prepare(config: Config, row: str, seed: int, samples: list[Sample]) -> Config:
    """Lay out the run of one row and seed: its configuration and its split."""
    own = row_config(config, row, seed)
    folder = run_folder(own)
    if not folder.exists("split.json"):
        split = split_as(own.data, own.run.seed, samples, about_dataset(own))
        folder.write_json("split.json", split.to_json())
    folder.write_json("config.json", own.model_dump(mode="json"))
    return own


def _file(category: str) -> str:
    return f"cells/{category}.json"


def _known(config: Config, row: str, seed: int, category: str) -> dict[str, Any] | None:
    """A finished cell, if it was made under these conditions."""
    folder = run_folder(config)
    if not folder.exists(_file(category)):
        return None
    cell = folder.read_json(_file(category))
    return cell if cell["config_digest"] == config.digest() else None


def _cell(values: dict[str, Any], row: str, category: str, hub: Any, oracle: bytes | None) -> bytes | None:
    """The task: one cell, written into its run; the real cell answers with its localiser."""
    import torch

    config = Config.model_validate(values)
    torch.set_num_threads(config.train.cpus_per_worker)
    torch.set_flush_denormal(True)
    folder = run_folder(config)
    done = _known(config, row, config.run.seed, category)
    if done is None:
        tell = Teller(hub, "ablate", f"{row} s{config.run.seed} {category}", config.train.steps)
        found = real_cell(config, category, hub) if oracle is None else model_cell(config, category, hub, tell, oracle)
        head = {"row": row, "seed": config.run.seed, "category": category, "config_digest": config.digest()}
        folder.write_json(_file(category), {**head, **found})
    return folder.read_bytes(f"detectors/{category}/real.safetensors") if oracle is None else None


def _run_cells(runs: dict[tuple[str, int], Config], categories: list[str], hub: Any, events: Events) -> list[str]:
    """All cells, seed after seed, so that an interrupted table has whole seeds; returns what failed."""
    t = next(iter(runs.values())).train
    task: Any = ray.remote(num_cpus=t.cpus_per_worker, num_gpus=t.gpus_per_worker, max_retries=2)(_cell)
    oracles: dict[tuple[int, str], Any] = {}
    names: dict[Any, str] = {}
    for (row, seed), config in runs.items():
        for category in categories:
            oracle = None if row == REAL else oracles[seed, category]
            reference = task.remote(config.model_dump(mode="json"), row, category, hub, oracle)
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
