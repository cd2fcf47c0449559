"""How large is the shortcut "drawn = defective": does a head tell good products that were drawn anew from others?

    python -m benchmarks.shortcut STORAGE RUN [CATEGORY] [--pairs 48] [--strengths .2 .35 .6 1] [--seeds 0 1]
        [--twins .35] [--result benchmarks/results/shortcut.json]

A *twin* is drawn as a pair is, from the same base, region and seed, but "without defect": the base itself and an empty
mask are noised. The control is a patch of another good image, pasted into the same region as defects are placed. A
localiser (the run's ``detect``) is trained on the twins of half of the bases, its masks their regions, beside the
untouched images; told is its pixel AP inside the regions of the other half, on twins and on the same images untouched:
a half is chance. ``--twins`` also trains detectors on the pairs of that strength with and without their twins among
the normal images, and tells their pixel AP on the real test half.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.trained_run import arguments, one_category
from dhdiff_ray.data.images import read_image, read_mask, whole_images
from dhdiff_ray.data.prompts import prompt
from dhdiff_ray.detector.evaluate import evaluate, predict
from dhdiff_ray.detector.train import train_localiser
from dhdiff_ray.metrics.detection import average_precision
from dhdiff_ray.pairs.make import finished, prepare
from dhdiff_ray.pairs.placement import OWN, place
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.records import GOOD


def main():
    parser = arguments()
    parser.add_argument("--pairs", type=int, default=48, help="of all defects together")
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.2, 0.35, 0.6, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the head")
    parser.add_argument("--twins", type=float, help="a strength; also what twins do for a detector")
    parser.add_argument("--result", default="benchmarks/results/shortcut.json")
    asked = parser.parse_args()
    torch.set_flush_denormal(True)
    config, held, category, pipeline = one_category(asked)
    result = Path(asked.result)
    told = json.loads(result.read_text()) if result.is_file() else {}
    found = told.setdefault(f"{asked.run} {category}", {})
    found["conditions"] = {
        "pairs": asked.pairs,
        "model_steps": config.train.steps,
        "resolution": config.data.resolution,
        "detect": config.detect.model_dump(mode="json", include={"network", "steps", "channels", "batch_size"}),
        "torch": torch.__version__,
    }
    requests = planned(config, held, category, asked.pairs)
    for name in ["pasted", *asked.strengths]:
        drawn = pasted(requests, config, held) if name == "pasted" else twins(requests, config, held, pipeline, name)
        aps = [probed(*drawn, config.detect, seed) for seed in asked.seeds]
        found[str(name)] = {
            "ap": [round(ap, 3) for ap in aps],
            "difference": round(changed(*drawn), 2),
            "masks_not_empty": int(drawn[3].any((1, 2)).sum()),
        }
        print(name, found[str(name)], flush=True)
        result.write_text(json.dumps(told, indent=1) + "\n")
    if asked.twins:
        found[f"detector, strength {asked.twins}"] = with_and_without(requests, config, held, pipeline, asked)
        print(found[f"detector, strength {asked.twins}"])
        result.write_text(json.dumps(told, indent=1) + "\n")


def planned(config, held, category, count):
    """That many requests, of all defects in turn, the bases one after the other."""
    goods = sorted(s.key for s in held.category(category).train if s.is_good)
    defects = [list(unit) for unit in shards(plan(config, held, category), config.synthesize.pairs_per_defect)]
    mixed = [defects[at % len(defects)][at // len(defects)] for at in range(count)]
    return [replace(request, base=goods[at * len(goods) // count]) for at, request in enumerate(mixed)]


def twins(requests, config, held, pipeline, strength):
    """Bases, the same drawn anew (n, h, w, 3), regions and made masks (n, h, w)."""
    made = [one for unit in units(requests, config) for one in drawn(unit, config, held, pipeline, strength, True)]
    return tuple(np.stack(each) for each in zip(*made, strict=True))


def drawn(unit, config, held, pipeline, strength, without):
    """Base, image, region and mask of each pair of a unit, or of each twin."""
    settings = config.synthesize.model_copy(update={"start": "reference", "strength": strength, "fade": False})
    ready = prepare(unit, config.model_copy(update={"synthesize": settings}), held.category(unit[0].category).train)
    call = dict(ready.call)
    if without:
        call |= {
            "prompt": [prompt(request.category, GOOD) for request in unit],
            "defect": [""] * len(unit),
            "placed": call["base"],
            "placed_mask": torch.zeros_like(call["placed_mask"]),
            "control_mask": None,
        }
    pairs = finished(unit, ready, pipeline(**call))
    regions = np.zeros(ready.bases.shape[:3], bool)
    for at, cut in enumerate(ready.cuts):
        regions[at][cut] = call["raw_mask"][at, 0].numpy() > 0
    return [
        (base, pair.image, region, pair.mask) for base, pair, region in zip(ready.bases, pairs, regions, strict=True)
    ]


def units(requests, config):
    """Batches of the run's size."""
    size = config.synthesize.shard_size
    return [requests[at : at + size] for at in range(0, len(requests), size)]


def pasted(requests, config, held):
    """As ``twins``, with patches of other good images where these are drawn anew."""
    by_key = {s.key: s for s in held.category(requests[0].category).train}
    side, made = config.data.resolution, []
    for at, request in enumerate(requests):
        base, mask = read_image(by_key[request.base], side), read_mask(by_key[request.reference], side)
        other = read_image(by_key[requests[(at + len(requests) // 2) % len(requests)].base], side)
        put = place(base, other, mask, request.seed, OWN)
        made.append((base, put.image, put.region > 0, np.zeros_like(mask)))
    return tuple(np.stack(each) for each in zip(*made, strict=True))


def probed(bases, images, regions, _, detect, seed):
    """Pixel AP inside the regions, on bases that the head has not seen."""
    seen = np.arange(len(bases)) % 2 == 0
    head = train_localiser(images[seen], regions[seen].astype(np.uint8) * 255, bases[seen], detect, seed)
    scores = [predict(head, some[~seen])[regions[~seen]] for some in (images, bases)]
    return average_precision(np.repeat([1, 0], [len(s) for s in scores]), np.concatenate(scores))


def changed(bases, images, regions, _):
    """Mean difference to the bases inside the regions, in grey values."""
    return float(np.abs(images.astype(float) - bases)[regions].mean())


def with_and_without(requests, config, held, pipeline, asked):
    """Pixel AP in percent of detectors trained on pairs, with and without as many twins among the normal images."""
    split, side = held.category(requests[0].category), config.data.resolution
    goods = np.stack([read_image(s, side) for s in split.train if s.is_good])
    tests = whole_images(split.test)
    images, masks = (np.stack([read(s, side) for s in tests]) for read in (read_image, read_mask))
    made = [one for unit in units(requests, config) for one in drawn(unit, config, held, pipeline, asked.twins, False)]
    pairs = np.stack([one[1] for one in made]), np.stack([one[3] for one in made])
    drawn_anew = twins(requests, config, held, pipeline, asked.twins)[1]
    times = max(1, len(goods) // len(drawn_anew))  # about half of the normal images shown are twins
    found = {"without": [], "with": []}
    for seed in asked.seeds:
        for name, normals in (("without", goods), ("with", np.concatenate([goods, *[drawn_anew] * times]))):
            model = train_localiser(*pairs, normals, config.detect, seed)
            found[name].append(round(100 * evaluate(model, images, masks)["pixel_ap"], 1))
    return {"n": len(made), "pixel_ap": found}


if __name__ == "__main__":
    main()
