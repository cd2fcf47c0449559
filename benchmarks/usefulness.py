"""Do made pairs help a detector of real photographs? Products x budgets of real defects x draws x detector seeds.

    python -m benchmarks.usefulness RECIPE STORAGE DIR --categories tile board --budgets 4 half --draws 0 1 2
                                    [--foundation tile=FOLDER ...] [--workers 2] [--set ...]

DIR has a folder for each category, with a manifest that names groups. A cell is one category, budget and draw: a run of
its own, ``<category>-<budget>-s<draw>``, whose generator, pasting and detectors see the same few real defects (the draw
is the run's seed). It is trained, its pairs are made and all detectors of the recipe tested, each step only where that
is not done yet, so that the same line goes on after a failure. With ``--workers`` cells run side by side as Ray tasks.
The decision rule is the recipe: nothing is chosen here, and the last weights are tested.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev

from benchmarks.plots import picture
from dhdiff_ray.config.load import load_config
from dhdiff_ray.detector import results
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.run.run import Run

FIGURES = ("pixel_ap", "image_auroc", "pro", "pixel_f1_max")
COLOURS = {
    "real": "#888888",
    "pasted": "#d8b365",
    "synthetic": "#8ab7d9",
    "real_pasted": "#b8860b",
    "real_synthetic": "#1f6fb2",
    "real_pasted_synthetic": "#5b3a8c",
}


class Quiet:
    """Takes what trainings and detectors tell; warnings are printed."""

    def __call__(self, *_, **__):
        pass

    def warn(self, message):
        print(message, flush=True)


def main():
    asked = arguments()
    cells = [(c, b, d) for d in asked.draws for b in asked.budgets for c in asked.categories]
    rows = []
    for row in answers(cells, asked):
        rows.append(row)
        print(json.dumps(row), flush=True)
        keep(rows, asked)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("storage")
    parser.add_argument("root")
    parser.add_argument("--categories", nargs="+", required=True)
    parser.add_argument("--budgets", nargs="+", default=["4"], help="real defects of each kind, or half")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--foundation", action="append", default=[], metavar="CATEGORY=FOLDER")
    parser.add_argument("--workers", type=int, default=0, help="cells side by side; 0: one by one in this process")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--result", default="benchmarks/results/usefulness.json")
    return parser.parse_args()


def answers(cells, asked):
    """The figures of each cell, as they are ready."""
    if not asked.workers:
        yield from (measured(cell, asked) for cell in cells)
        return
    import ray

    ray.init(num_cpus=asked.workers, include_dashboard=False)
    try:
        waiting = [ray.remote(num_cpus=1)(measured).remote(cell, asked) for cell in cells]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield ray.get(done[0])
    finally:
        ray.shutdown()


def measured(cell, asked):
    """One cell, from its photographs to its detectors' figures."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    category, budget, draw = cell
    run, start = laid_out(asked, *cell), time.process_time()
    loss = generated(run, category)
    made, seconds = time.process_time() - start, {}
    detectors = {}
    for training in results.trainings_of(run.config):
        kind, at = training
        figures = Detectors(run, category, Quiet(), at).examined(kind, resume=True)
        detectors.setdefault(kind, []).append({name: figures[name] for name in FIGURES})
        seconds[kind] = figures["seconds"]
    return {
        "category": category,
        "budget": budget,
        "draw": draw,
        "split": run.category(category).digest,
        "real": sum(not s.is_good for s in run.category(category).train),
        "generator_loss": loss,
        "generator_seconds": round(made),
        "detectors": detectors,
    }


def laid_out(asked, category, budget, draw):
    """The run of a cell."""
    split = ["data.split=half"] if budget == "half" else ["data.split=kshot", f"data.shots={budget}"]
    sets = [
        f'run.storage="{asked.storage}"',
        f"run.name={category}-{budget}-s{draw}",
        f"run.seed={draw}",
        f'data.root="{Path(asked.root, category)}"',
        *split,
        *(f'model.backbone="{folder}"' for name, folder in map(parted, asked.foundation) if name == category),
        *asked.sets,
    ]
    run = Run(load_config(asked.recipe, sets=tuple(sets)).config)
    run.begin(run.scan(lambda *_, **__: None))
    return run


def parted(text):
    """A category and its foundation's folder."""
    name, _, folder = text.partition("=")
    return name, folder


def generated(run, category):
    """Train the generator of a cell and make its pairs, where that is not done; its last loss."""
    from dhdiff_ray.pairs.make import make, open_pipeline
    from dhdiff_ray.pairs.plan import plan, shards
    from dhdiff_ray.pairs.units import CategoryPairs
    from dhdiff_ray.pairs.writer import PairWriter, finished_categories
    from dhdiff_ray.training.loop import train_category

    facts = train_category(run, category, print)
    if category not in finished_categories(run.folder):
        requests, s = plan(run.config, run.split, category), run.config.synthesize
        with run.folder.fetched(f"models/{category}") as model:
            pipeline = open_pipeline(run.config, model, s.gpus_per_worker)
        writer = PairWriter(run.folder)
        for unit in shards(requests, s.shard_size):
            for pair in make(unit, pipeline, run.config, run.split.train):
                writer.write_pair(pair)
        CategoryPairs({"category": category, **facts}, requests, []).finish(run)
    return round(facts["last_loss"], 4)


def keep(rows, asked):
    """Write every cell, the means over cells, and the plot beside them."""
    config = load_config(asked.recipe, sets=tuple(asked.sets)).config
    part = {name: getattr(config, name).model_dump(mode="json") for name in ("data", "synthesize", "detect")}
    part["train"] = {name: getattr(config.train, name) for name in ("steps", "learning_rate", "global_batch_size")}
    table = {kind: summary(rows, kind) for kind in rows[0]["detectors"]}
    result = Path(asked.result)
    result.write_text(json.dumps({"conditions": part, "means": table, "cells": rows}, indent=1) + "\n")
    result.with_suffix(".svg").write_text(plot(rows))


def summary(rows, kind):
    """Pixel AP and image AUROC of a kind by category, in percent: mean and spread over draws and detector seeds."""
    told = {}
    for category in sorted({row["category"] for row in rows}):
        for name in FIGURES[:2]:
            values = of(rows, category, kind, name)
            told.setdefault(category, {})[name] = [round(mean(values), 1), round(stdev(values), 1) if values[1:] else 0]
    return told


def of(rows, category, kind, name):
    """All values of a figure, in percent."""
    mine = [row["detectors"][kind] for row in rows if row["category"] == category]
    return [100 * one[name] for detectors in mine for one in detectors if one[name] is not None]


def plot(rows):
    """Bars of pixel AP by category and kind, with their spread, as SVG."""
    kinds = [kind for kind in COLOURS if kind in rows[0]["detectors"]]
    categories = sorted({row["category"] for row in rows})
    wide, tall, bar = 150 * len(categories) + 60, 260, 110 / len(kinds)
    parts = [f'<text x="8" y="16">pixel AP, %</text><line x1="40" y1="230" x2="{wide}" y2="230" stroke="#888"/>']
    for at, category in enumerate(categories):
        left = 50 + 150 * at
        parts.append(f'<text x="{left}" y="246">{category}</text>')
        for k, kind in enumerate(kinds):
            values = of(rows, category, kind, "pixel_ap")
            high, spread, x = 2 * mean(values), 2 * (stdev(values) if values[1:] else 0), left + k * bar
            parts.append(
                f'<rect x="{x:.0f}" y="{230 - high:.0f}" width="{bar - 2:.0f}" height="{high:.0f}" '
                f'fill="{COLOURS[kind]}"><title>{kind} {mean(values):.1f}</title></rect>'
                f'<path d="M{x + bar / 2 - 1:.0f} {230 - high - spread:.0f}v{2 * spread:.0f}" stroke="#222"/>'
            )
    for k, kind in enumerate(kinds):
        parts.append(f'<text x="{110 * k + 100}" y="16" fill="{COLOURS[kind]}">{kind}</text>')
    return picture("".join(parts), max(wide, 110 * len(kinds) + 120), tall)


if __name__ == "__main__":
    main()
