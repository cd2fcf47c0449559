"""Put a foundation into the package, in half precision: ``dhdiff-ray/NAME`` from then on.

    python -m benchmarks.ship RUN_FOLDER NAME

Its facts go along: recipe, sources, seed, seconds; the weights' hash is that of what ships.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.run.foundation import weights_hash
from dhdiff_ray.training.checkpoint import card, write_pipeline

MODEL = "models/foundation"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    asked = parser.parse_args()
    source = asked.run / MODEL
    target = Path(__file__).parent.parent / "dhdiff_ray" / "foundations" / asked.name
    shutil.rmtree(target, ignore_errors=True)
    pipeline = DHDiffPipeline.from_pretrained(source)
    pipeline.unet.to(torch.float16)
    write_pipeline(pipeline, target)
    facts = json.loads((source / "dhdiff.json").read_text())
    config = json.loads((asked.run / "config.json").read_text())
    facts |= {"weights_sha256": weights_hash(target), "precision": "fp16", "seed": config["run"]["seed"]}
    facts["recipe"] = f"jobs/foundation_{asked.name}.toml"
    (target / "dhdiff.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    (target / "README.md").write_text(card(facts))
    for file in target.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
