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

import numpy as np
import torch

from dhdiff_ray.config.load import load_config
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.on_ray.verbs.ablate import model_cell, trained
from dhdiff_ray.run.run import Run

FIGURES = ("iou", "pixel_ap", "real_pixel_ap", "train_seconds", "last_loss")
SCRATCH = ["train.learning_rate=3e-3"]
"""What training from scratch is best done with, where the preset is made for adaptation."""
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
    trained(run, category, Quiet())
    seconds = time.process_time() - start
    figures = model_cell(run, category, Quiet(), Quiet(), oracle)  # of the model that is there
    found = (figures["iou"], figures["pixel_ap"], real.folder.read_json("figures.json")["pixel_ap"], seconds)
    return {name: round(value, 4) for name, value in zip(FIGURES, (*found, figures["last_loss"]), strict=True)}


def laid_out(preset, sets):
    """A run with its split."""
    run = Run(load_config(preset=preset, sets=tuple(sets)).config)
    run.begin(run.scan(lambda *_, **__: None))
    return run


def plot(cells, width=360, height=240, margin=44):
    """IoU and AP over steps, a panel for each category: means over seeds, with a bar from the least to the most."""
    categories = sorted({cell["category"] for cell in cells})
    panels = [(c, figure) for c in categories for figure in ("iou", "pixel_ap")]
    steps = sorted({cell["steps"] for cell in cells})
    low, high = np.log(min(steps)), np.log(max(steps) + 1)
    parts = []
    for number, (category, figure) in enumerate(panels):
        left, top = (number % 2) * (width + margin) + margin, (number // 2) * (height + margin) + margin
        across = lambda s, left=left: left + (np.log(s) - low) / max(high - low, 1e-9) * width  # noqa: E731
        down = lambda v, top=top: top + (1 - v) * height  # noqa: E731
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        title = {"iou": "mask IoU with the oracle", "pixel_ap": "pixel AP, made pairs alone"}[figure]
        parts.append(f'<text x="{left}" y="{top - 8}">{category}: {title}</text>')
        parts += [f'<text x="{across(s)}" y="{top + height + 16}" text-anchor="middle">{s}</text>' for s in steps]
        parts += [f'<text x="{left - 6}" y="{down(v) + 4}" text-anchor="end">{v}</text>' for v in (0, 0.5, 1)]
        for way in sorted({cell["way"] for cell in cells}):
            line = []
            for s in steps:
                values = [c[figure] for c in cells if (c["category"], c["way"], c["steps"]) == (category, way, s)]
                if values:
                    line.append(f"{across(s):.1f},{down(np.mean(values)):.1f}")
                    ends = (down(min(values)), down(max(values)))
                    x = across(s)
                    parts.append(f'<path d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{COLOURS[way]}"/>')
            parts.append(f'<polyline points="{" ".join(line)}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"/>')
    for number, (way, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{margin + number * 90}" y="18" fill="{colour}">{way}</text>')
    size = (2 * (width + margin) + margin, -(-len(panels) // 2) * (height + margin) + margin)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
