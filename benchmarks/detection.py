"""Do made pairs help a detector: every kind of training data over several seeds, on a run that exists.

    python -m benchmarks.detection runs/demo --seeds 3 [--steps 250] [--category capsule] [--kind real] [--about WORDS]

Real pairs, made pairs, pasted defects, their sums, CutPaste, Perlin shapes and normal images alone: each trained with
the run's own settings and tested on its held-out half, one after the other in this process. The run is only read.
``detection.json`` holds one entry per run's name, ``detection.md`` shows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "pixel_f1_max")
SHOWN = {"n_train": "real", "n_pairs": "made", "n_pasted": "pasted", "n_normal": "normal images"}


class Quiet:
    """Takes what a training tells, and keeps it."""

    def __call__(self, done: int, loss: float | None = None) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        print(f"warning: {message}")


def main() -> None:
    arguments = _arguments()
    import numpy as np
    import torch

    from dhdiff_ray.detector.kinds import Detectors
    from dhdiff_ray.detector.results import BASELINES
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run

    torch.set_num_threads(1)
    run = Run.stored(RunFolder.at(arguments.run))
    config, split = run.config, run.split
    if arguments.steps:
        config = config.model_copy(update={"detect": config.detect.model_copy(update={"steps": arguments.steps})})
    start = time.process_time()
    rows: list[dict[str, Any]] = []
    for category in arguments.category or split.categories:
        for kind in arguments.kind or ("synthetic", *BASELINES):
            figures, facts = [], {}
            for seed in range(arguments.seeds):
                seeded = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
                detectors = Detectors(Run(seeded, run.folder), category, Quiet())
                maps_of, facts = _of_real_pairs(detectors) if kind == "real" else detectors.trained(kind)
                figures.append(detectors.tested(maps_of))
            row: dict[str, Any] = {"category": category, "trained_on": kind, **facts}
            for name in FIGURES:
                values = [one[name] for one in figures]
                row[name] = round(float(np.mean(values)), 4)
                row[f"{name}_std"] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
            row |= {name: figures[0][name] for name in ("n_good", "n_defect")}
            rows.append(row)
            print(json.dumps(row), flush=True)
    conditions = {
        "about": arguments.about,
        "dataset": config.data.dataset,
        "resolution": config.data.resolution,
        "generator_steps": config.train.steps,
        "generator_seed": config.run.seed,
        "seeds": arguments.seeds,
        "seeds_vary": "the detector's weights and batches, what is pasted; the pairs and the split are the run's",
        "split_digest": split.digest,
        "config_digest": config.digest(),
        **config.detect.model_dump(mode="json"),
        "processor_seconds": round(time.process_time() - start),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / "detection.json"
    known = json.loads(result.read_text()) if result.exists() else {}
    known[run.folder.uri.rpartition("/")[2]] = {"rows": rows, "conditions": conditions}
    result.write_text(json.dumps(known, indent=2) + "\n")
    result.with_suffix(".md").write_text(as_text(known))
    print(f"written: {result} and {result.with_suffix('.md')}")


def as_text(known: dict[str, Any]) -> str:
    """Every run's table in Markdown: mean and standard deviation over seeds, in percent."""
    lines = ["# Do made pairs help a detector", "", "Mean ± standard deviation over the detector's seeds, in percent."]
    for name, one in known.items():
        told = one["conditions"]
        lines += ["", f"## {name}", "", *([told["about"], ""] if told["about"] else [])]
        lines += [
            f"{told['dataset']}, {told['resolution']} pixels, {told['seeds']} seeds ({told['seeds_vary']}); "
            f"{told['steps']} steps of batch {told['batch_size']}, network {told['network']} of {told['channels']} "
            f"channels, loss {told['loss']}, weights: {told['select']}; generator: {told['generator_steps']} steps.",
            "",
            "| category | trained on | pairs | " + " | ".join(FIGURES).replace("_", " ") + " | tested on |",
            "|---|---|---|" + "---|" * (len(FIGURES) + 1),
        ]
        for row in one["rows"]:
            seen = ", ".join(f"{row[key]} {words}" for key, words in SHOWN.items() if key in row)
            cells = [f"{100 * row[f]:.1f}" + _spread(row[f"{f}_std"]) for f in FIGURES]
            tested = f"{row['n_good']} normal, {row['n_defect']} defective"
            lines.append(f"| {row['category']} | {row['trained_on']} | {seen} | {' | '.join(cells)} | {tested} |")
    return "\n".join(lines) + "\n"


def _spread(std: float | None) -> str:
    return "" if std is None else f" ± {100 * std:.1f}"


def _of_real_pairs(detectors: Any) -> tuple[Any, dict[str, Any]]:
    """The detector of real pairs, without writing it into the run."""
    from dhdiff_ray.detector.evaluate import predict

    model, facts = detectors.new_localiser("real")
    return lambda images: predict(model, images), facts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="folder of a run that has pairs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="of each detector; 0: the run's")
    parser.add_argument("--category", action="append", help="only this one; may be repeated")
    parser.add_argument("--kind", action="append", help="only detectors trained on this; may be repeated")
    parser.add_argument("--about", default="", help="a sentence on the run, kept with its figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
