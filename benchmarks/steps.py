"""Steps against quality: the pairs of one trained run, drawn with fewer steps and by other samplers of diffusers.

    python -m benchmarks.steps STORAGE RUN [capsule mesh] --starts noise reference --steps 4 5 8 12 20 25

Each cell draws first tries by one model, as many as there are real training defects, and judges them: mask IoU with the
run's localiser of real pairs (trained if it is not there), pixel AP of a detector trained on the pairs alone, IC-LPIPS
and originality by stand-in features, and processor seconds per pair of one thread. Cells that are done are kept; an SVG
goes beside the result.
"""

import json
import time
from collections import Counter
from pathlib import Path

import diffusers
import numpy as np
import torch

from benchmarks.head_start import SHOWN, Quiet
from benchmarks.plots import panels
from benchmarks.trained_run import arguments, opened
from dhdiff_ray.config.load import with_values
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.detector.evaluate import alignment, predict
from dhdiff_ray.detector.kinds import Detectors
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.run.run import Run
from dhdiff_ray.scoring.defect import Defect, DefectScorer, RealImages

NOISE = {"synthesize.start": "noise", "synthesize.strength": 1.0, "synthesize.placement": "free"}
MULTISTEP = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": False}
SAMPLERS = {
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **MULTISTEP}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **MULTISTEP}),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3, **MULTISTEP}),
    "UniPC": ("UniPCMultistepScheduler", MULTISTEP),
    "DEIS": ("DEISMultistepScheduler", {"timestep_spacing": "trailing"}),
    "LCM": ("LCMScheduler", MULTISTEP),
}
"""The first is the published models' own."""
SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
COLOURS = dict(zip(SAMPLERS, ("#1f6fb2", "#c2571a", "#2a8a4a", "#8a4fb0", "#a8862a", "#888888"), strict=True))


def main():
    parser = arguments()
    parser.add_argument("categories", nargs="*")
    parser.add_argument("--starts", nargs="+", default=["reference", "noise"], choices=["noise", "reference"])
    parser.add_argument("--steps", nargs="+", type=int, default=[4, 5, 8, 12, 20, 25])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--pairs", type=int, default=0, help="per defect; 0: as many as there are real ones")
    parser.add_argument("--detectors", type=int, default=2, help="trained on a cell's pairs; 0: mask IoU alone")
    parser.add_argument("--result", default="benchmarks/results/steps.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config, folder, split = opened(asked.storage, asked.run)
    result = Path(asked.result)
    known = json.loads(result.read_text()) if result.is_file() else {"real": {}, "cells": []}
    for category in [c for c in (asked.category, *asked.categories) if c] or split.categories:
        bench = Bench(Run(config), category, asked.model or folder.local(f"models/{category}"), asked)
        if category not in known["real"]:
            known["real"][category] = round(bench.tested(bench.oracle), 4)
        for start in asked.starts:
            for steps in sorted(asked.steps, reverse=True):
                for sampler in asked.samplers:
                    cell = {"category": category, "start": start, "sampler": sampler, "steps": steps}
                    if any(cell.items() <= done.items() for done in known["cells"]):
                        continue
                    known["cells"].append(cell | bench.measured(start, sampler, steps))
                    print(json.dumps(known["cells"][-1]), flush=True)
                    known["conditions"] = conditions(config, asked)
                    result.write_text(json.dumps(known, indent=1) + "\n")
    result.with_suffix(".svg").write_text(plot(known["cells"]))


def conditions(config, asked):
    s = config.synthesize
    return {
        "preset_start": {"start": s.start, "strength": s.strength, "placement": s.placement},
        "training_steps": config.train.steps,
        "backbone": config.model.backbone,
        "seed": config.run.seed,
        "threads": 1,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


class Bench:
    """One category's model, and what its pairs are judged by."""

    def __init__(self, run, category, model, asked):
        self.run, self.category, self.asked = run, category, asked
        self.pipeline = DHDiffPipeline.from_pretrained(model)
        self.pipeline.set_progress_bar_config(disable=True)
        self.schedule = dict(self.pipeline.scheduler.config)
        self.oracle, _ = self.detectors(0).real_localiser()
        self.split = run.category(category)
        self.scorer = DefectScorer(run.config.score.model_copy(update={"metrics": ("ic_lpips", "originality")}))

    def measured(self, start, sampler, steps):
        """The figures of one cell."""
        kind, own = SAMPLERS[sampler]
        shared = {name: self.schedule[name] for name in SCHEDULE}
        self.pipeline.scheduler = getattr(diffusers, kind)(**shared, **own)
        counts = Counter(sample.defect for sample in self.split.train if not sample.is_good)
        sets = {"synthesize.steps": steps, "synthesize.pairs_per_defect": self.asked.pairs or max(counts.values())}
        config = with_values(self.run.config, sets | (NOISE if start == "noise" else {}), "the benchmark")
        pairs = []
        begun = time.process_time()
        for unit in shards(plan(config, self.run.split, self.category), config.synthesize.shard_size):
            pairs += make(unit, self.pipeline, config, self.split.train)
        seconds = (time.process_time() - begun) / len(pairs)
        images, masks = np.stack([p.image for p in pairs]), np.stack([p.mask for p in pairs])
        aligned = alignment(self.oracle, images, masks)
        found = {"iou": aligned["iou"], "nonempty": aligned["nonempty"], "seconds": seconds}
        if self.asked.detectors:
            found |= {"pixel_ap": self.pixel_ap(images, masks), **self.scores(pairs)}
        calls = steps if start == "noise" else round(steps * config.synthesize.strengths[1])
        return {"pairs": len(pairs), "calls": calls} | {name: round(value, 4) for name, value in found.items()}

    def detectors(self, seed):
        seeded = with_values(self.run.config, {"run.seed": self.run.config.run.seed + seed}, "the benchmark")
        return Detectors(Run(seeded, self.run.folder), self.category, Quiet())

    def pixel_ap(self, images, masks):
        """Of detectors trained on these pairs, the mean over their seeds."""
        found = []
        for seed in range(self.asked.detectors):
            model, _ = self.detectors(seed).localiser(images, masks)
            found.append(self.tested(model))
        return float(np.mean(found))

    def tested(self, model):
        """Pixel AP of a localiser on the test half."""
        return float(self.detectors(0).tested(lambda shown: predict(model, shown))["pixel_ap"])

    def scores(self, pairs):
        """IC-LPIPS and originality, means over the defects."""
        by_metric = {}
        for name in {p.request.defect for p in pairs}:
            made = {p.request.name: p.image for p in pairs if p.request.defect == name}
            train, held_out = (self._real(side, name) for side in (self.split.train, self.split.test))
            defect = Defect(self.category, name, tuple(made), made.__getitem__, None, train, held_out)
            for score in self.scorer.value(defect, self.scorer.observe(defect, list(made))):
                by_metric.setdefault(score.metric.removesuffix("_standin"), []).append(score.value)
        return {name: float(np.nanmean([v for v in values if v is not None])) for name, values in by_metric.items()}

    def _real(self, side, defect):
        same, resolution = [s for s in side if s.defect == defect], self.run.config.data.resolution
        return RealImages(
            tuple(s.key for s in same),
            tuple(read_image(s, resolution) for s in same),
            tuple(read_mask(s, resolution) for s in same),
        )


def plot(cells):
    """IoU and AP over the steps, a row of panels for each category and start."""
    charts = {}
    for category, start in sorted({(cell["category"], cell["start"]) for cell in cells}):
        for figure, words in SHOWN.items():
            lines = charts.setdefault(f"{category}, from {start}: {words}", {})
            for cell in cells:
                if (cell["category"], cell["start"]) == (category, start) and figure in cell:
                    lines.setdefault(cell["sampler"], {}).setdefault(cell["steps"], []).append(cell[figure])
    return panels(charts, COLOURS)


if __name__ == "__main__":
    main()
