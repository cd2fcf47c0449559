"""What a foundation is worth: the same product adapted from it and trained from scratch, over steps and seeds.

    python -m benchmarks.head_start STORAGE --root DIR --backbone dhdiff-ray/tiny --steps 100 300 1500 --seeds 0 1 2

Each cell trains one model in this process (one thread), draws its pairs and judges them twice: mask IoU with an oracle
trained on real pairs, and pixel AP of a detector trained on the made pairs alone, beside the real ones'. Cells that are
done are kept. The curves go beside the result as an SVG.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.plots import panels
from dhdiff_ray.config.load import load_config
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.on_ray.verbs.ablate import model_cell
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.loop import train_category

FIGURES = ("iou", "pixel_ap", "real_pixel_ap", "train_seconds", "last_loss")
SCRATCH = ["train.learning_rate=3e-3"]
"""What training from scratch is best done with, where the preset is made for adaptation."""
SHOWN = {"iou": "mask IoU with the oracle", "pixel_ap": "pixel AP, made pairs alone"}
COLOURS = {"scratch": "#888888", "full": "#1f6fb2", "lora": "#c2571a"}


class Quiet:
    """Takes what trainings and detectors tell, and keeps it to itself."""

    def __call__(self, *_, **__):
        pass

    def __getattr__(self, name):
        return self


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("--root", required=True)
    parser.add_argument("--dataset", default="procedural")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--categories", nargs="+", default=["capsule", "mesh"])
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--ways", nargs="+", default=["scratch", "full"], choices=list(COLOURS))
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 300, 1500])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=20, help="per defect")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="for adapted models")
    parser.add_argument("--common", action="append", default=[], help="for all models")
    parser.add_argument("--result", default="benchmarks/results/head_start.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    result = Path(asked.result)
    cells = json.loads(result.read_text())["cells"] if result.is_file() else []
    wanted = [
        {"category": c, "way": way, "steps": steps, "seed": seed}
        for seed in asked.seeds
        for c in asked.categories
        for steps in sorted(asked.steps)
        for way in asked.ways
    ]
    for cell in wanted:
        if any(cell.items() <= done.items() for done in cells):
            continue
        cells.append(cell | measured(asked, **cell))
        print(json.dumps(cells[-1]), flush=True)
        about = {
            "conditions": {
                name: getattr(asked, name) for name in ("dataset", "preset", "backbone", "pairs", "sets", "common")
            }
            | {"threads": 1, "torch": torch.__version__},
        }
        result.write_text(json.dumps(about | {"cells": cells}, indent=1) + "\n")
    result.with_suffix(".svg").write_text(plot(cells))


def measured(asked, category, way, steps, seed):
    """The figures of one cell."""
    places = [f'run.storage="{asked.storage}"', f'data.root="{asked.root}"', f"data.dataset={asked.dataset}"]
    common = [
        *places,
        "synthesize.start=noise",
        "synthesize.strength=1.0",
        "synthesize.placement=free",
        "synthesize.steps=25",
        f"run.seed={seed}",
        f"data.categories=['{category}']",
        *asked.common,
    ]
    real = laid_out(asked.preset, [*common, f"run.name=real-{category}-{seed}", 'model.backbone=""'])
    if not real.folder.exists("figures.json"):
        real.folder.write_json(
            "figures.json", {"pixel_ap": Detectors(real, category, Quiet()).examined("real")["pixel_ap"]}
        )
    oracle = real.folder.read_bytes(f"detectors/{category}/real.safetensors")
    backbone = "" if way == "scratch" else asked.backbone
    sets = [f"run.name={way}-{category}-{steps}-{seed}", f'model.backbone="{backbone}"', f"train.steps={steps}"]
    sets += [f"synthesize.pairs_per_defect={asked.pairs}", f"train.checkpoint_every={steps}"]
    sets += SCRATCH if way == "scratch" else [f"train.adapt={way}", *asked.sets]
    run = laid_out(asked.preset, [*common, *sets])
    start = time.process_time()
    train_category(run, category, print)
    seconds = time.process_time() - start
    figures = model_cell(run, category, Quiet(), Quiet(), oracle)  # of the model that is there
    found = (figures["iou"], figures["pixel_ap"], real.folder.read_json("figures.json")["pixel_ap"], seconds)
    return {name: round(value, 4) for name, value in zip(FIGURES, (*found, figures["last_loss"]), strict=True)}


def laid_out(preset, sets):
    """A run with its split."""
    run = Run(load_config(preset=preset, sets=tuple(sets)).config)
    run.begin(run.scan(lambda *_, **__: None))
    return run


def plot(cells):
    """IoU and AP over steps, a panel for each category, with a bar from the least to the most of the seeds."""
    charts = {}
    for category in sorted({cell["category"] for cell in cells}):
        for figure, words in SHOWN.items():
            lines = charts.setdefault(f"{category}: {words}", {})
            for cell in (cell for cell in cells if cell["category"] == category):
                lines.setdefault(cell["way"], {}).setdefault(cell["steps"], []).append(cell[figure])
    return panels(charts, COLOURS)


if __name__ == "__main__":
    main()
