"""Does a mask follow its image, or is it the placed mask again?

    python -m benchmarks.mask_follow STORAGE RUN [CATEGORY] [--pairs 24] [--strengths .15 .3 .45 .6]
        [--result benchmarks/results/mask_follow.json]

Pairs start from a placed reference. Told are mean IoUs by strength: of the made mask with the placed one, of both with
what a localiser of real pairs sees on the made image, and the largest overlap with any training mask. Then the same
pairs with a placed mask that is wrong, moved beside the defect by a tenth of the window: a mask that follows its image
lies on the defect again (``moved: made, true``), a copy where it was put (``moved: made, given``).
"""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.shortcut import units
from benchmarks.trained_run import arguments, one_category
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.detector.evaluate import predict
from dhdiff_ray.detector.train import train_localiser
from dhdiff_ray.metrics.overlap import overlap_rows
from dhdiff_ray.pairs.make import prepare
from dhdiff_ray.pairs.plan import plan


def main():
    parser = arguments()
    parser.add_argument("--pairs", type=int, default=24, help="of all defects together")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.15, 0.3, 0.45, 0.6])
    parser.add_argument("--result", default="benchmarks/results/mask_follow.json")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    config, held, category, pipeline = one_category(asked)
    result, samples = Path(asked.result), held.category(category).train
    told = json.loads(result.read_text()) if result.is_file() else {}
    side = config.data.resolution
    real = [s for s in samples if not s.is_good]
    images, masks = (np.stack([read(s, side) for s in real]) for read in (read_image, read_mask))
    goods = np.stack([read_image(s, side) for s in samples if s.is_good])
    oracle = train_localiser(images, masks, goods, config.detect, config.run.seed)
    requests = plan(config, held, category)
    requests = requests[:: max(1, len(requests) // asked.pairs)][: asked.pairs]
    found = told[f"{asked.run} {category}"] = {
        "conditions": {"pairs": len(requests), "model_steps": config.train.steps, "resolution": side}
    }
    for strength in asked.strengths:
        made = [measured(unit, config, samples, pipeline, strength, oracle, masks) for unit in units(requests, config)]
        found[str(strength)] = {k: round(float(np.concatenate([m[k] for m in made]).mean()), 3) for k in made[0]}
        print(strength, found[str(strength)], flush=True)
        result.write_text(json.dumps(told, indent=1) + "\n")


def measured(unit, config, samples, pipeline, strength, oracle, training_masks):
    """IoUs of each pair of a unit, inside its window."""
    settings = config.synthesize.model_copy(update={"start": "reference", "strength": strength, "fade": False})
    ready = prepare(unit, config.model_copy(update={"synthesize": settings}), samples)
    call = ready.call
    placed = call["placed_mask"][:, 0].numpy() > 0
    step = round(0.1 * placed.shape[-1])
    beside = torch.roll(call["placed_mask"], (step, step), (2, 3))
    images, mask = drawn(pipeline, call)
    seen = predict(oracle, images) > 0.5
    _, moved = drawn(pipeline, {**call, "placed_mask": beside, "control_mask": None})
    whole = [np.zeros(base.shape[:2], bool) for base in ready.bases]
    for at, cut in enumerate(ready.cuts):
        whole[at][cut] = mask[at]
    rows = overlap_rows([str(at) for at in range(len(unit))], whole, training_masks)
    return {
        "made, placed": iou(mask, placed),
        "made, oracle": iou(mask, seen),
        "placed, oracle": iou(placed, seen),
        "made, training": np.array([rows[str(at)][0] if str(at) in rows else 0.0 for at in range(len(unit))]),
        "moved: made, true": iou(moved, placed),
        "moved: made, given": iou(moved, beside[:, 0].numpy() > 0),
    }


def drawn(pipeline, call):
    """Images uint8 (n, h, w, 3) and masks bool (n, h, w)."""
    generators = [torch.Generator().manual_seed(one.initial_seed()) for one in call["generator"]]
    made = pipeline(**{**call, "generator": generators})
    return (made.images * 255).round().byte().permute(0, 2, 3, 1).numpy(), made.masks[:, 0].numpy() > 0.5


def iou(one, other):
    """Of each pair of masks (n, h, w); 0 where both are empty."""
    both, either = ((f(one, other)).sum((1, 2)) for f in (np.logical_and, np.logical_or))
    return both / np.maximum(either, 1)


if __name__ == "__main__":
    main()
