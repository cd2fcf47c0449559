"""Does the paper's "same noise" on the reference give the target away? Trains briefly in each mode and looks.

With the same noise, z^I - z^R = alpha (x - r): where reference and image agree the noise can be read off. If the
network learns to, its loss with its own reference falls below its loss without, in ``same`` alone. Attention stands at
every level: at the ``tiny`` preset's place, the coarsest level alone, the reference moved no loss in any mode.
"""

import json
import tempfile
from pathlib import Path

import torch

from dhdiff_ray.config.load import load_config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.training.build import build, build_source, fit_look
from dhdiff_ray.training.loop import PlainEngine, fit

STEPS = 400
EVERY_LEVEL = (
    "model.attention_blocks=[true,true,true]",
    "model.dda_encoder=[0,1,2,3]",
    "model.dda_decoder=[0,1,2]",
    "model.ssm_encoder=[2,3]",
)
HELD_OUT = 40


def main():
    torch.set_num_threads(1)
    figures = {"steps": STEPS, "category": "capsule", "attention": "every level", "held_out_batches": HELD_OUT}
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
        root = Path(temporary)
        generate(root, resolution=64, categories=["capsule"], defects_per_type=20, train_good=20, test_good=2)
        data = read_many(open_dataset("procedural").scan(root), 64, False, print)
        for shown in ("defect", "full"):
            for noise in ("same", "independent", "clean"):
                figures[f"{shown}_{noise}"] = losses(data, noise, shown)
                print(shown, noise, figures[f"{shown}_{noise}"])
    result = Path(__file__).parent / "results" / "reference_noise.json"
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps(figures, indent=2) + "\n")


def losses(data, noise, shown):
    fixed = (
        *EVERY_LEVEL,
        "model.backbone=''",
        "train.learning_rate=3e-3",
        "train.normal_fraction=0",
        "train.clean_background=0",
        "train.reference_dropout=0.2",
    )
    sets = (*fixed, f"train.reference_noise={noise}", f"train.reference={shown}", f"train.steps={STEPS}")
    config = load_config(preset="tiny", sets=sets).config
    parts = build(config, *data[:2])
    source = build_source(parts, config, *data)
    fit_look(parts, source)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    found = {}
    for name, dropout in (("with_reference", 0.0), ("without", 1.0)):
        source.config = config.train.model_copy(update={"reference_dropout": dropout})
        with torch.no_grad():
            logs = [parts.objective(source.draw(10**6 + i, 4))[1]["loss_image"] for i in range(HELD_OUT)]
        found[name] = round(float(torch.stack(logs).mean()), 4)
    return found


if __name__ == "__main__":
    main()
