"""Do made pairs sit in their product: does the surface go on across a raw mask's edge, does a defect stand out?

    python -m benchmarks.edges STORAGE RUN [CATEGORY] [--model FOLDER] [--pairs 4] [--picture OUT.png]

Pairs are drawn as the run would draw them. Told are, per defect and over all, in grey values of 255:

- ``step``: mean absolute difference of mean brightness between the 6 pixels inside a raw mask's edge and the 6
  outside, away from the made mask, and ``step_bases``, the same on the products it was drawn on;
- ``contrast``: mean absolute difference of mean brightness between a mask and the 6 pixels around it, and
  ``contrast_real``, the same on the real training anomalies;
- ``empty``: masks with nothing in them;
- ``share`` and ``share_references``: part of the image that a mask covers, and that of the pair's reference does.

The picture has two rows per defect, images and masks.
"""

import json
from itertools import groupby

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from benchmarks.trained_run import arguments, one_category
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.regions import raw_mask
from dhdiff_ray.pairs.make import make
from dhdiff_ray.pairs.plan import plan

REACH = 6
"""Width of the strips that are compared, in pixels."""
MEASURES = ("step", "step_bases", "contrast", "contrast_real", "empty", "share", "share_references")
FEWEST = 50
"""Pixels a strip must have to be counted."""


def main():
    parser = arguments()
    parser.add_argument("--pairs", type=int, default=4, help="per defect")
    parser.add_argument("--picture", help="where to keep the pairs as one picture")
    asked = parser.parse_args()
    config, held, category, pipeline = one_category(asked)
    wanted = config.synthesize.model_copy(update={"pairs_per_defect": asked.pairs})
    config = config.model_copy(update={"synthesize": wanted})
    samples = held.category(category).train
    found, rows = {}, []
    for defect, requests in groupby(plan(config, held, category), key=lambda request: request.defect):
        pairs = make(list(requests), pipeline, config, samples)
        rows += [[p.image for p in pairs], [np.repeat(p.mask[..., None], 3, 2) for p in pairs]]
        found[defect] = figures(pairs, samples, defect, config.data)
    told = {"run": asked.run, "category": category, "pairs": asked.pairs}
    print(json.dumps({**told, "all": over(found.values()), **{d: over([f]) for d, f in found.items()}}, indent=2))
    if asked.picture:
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(asked.picture)


def figures(pairs, samples, defect, data):
    """Lists of each measure, one value per pair or real anomaly that has it."""
    by_key, side = {s.key: s for s in samples}, data.resolution
    found = {
        name: [] for name in ("step", "step_bases", "contrast", "contrast_real", "empty", "share", "share_references")
    }
    for pair in pairs:
        base, mask = read_image(by_key[pair.request.base], side), pair.mask > 0
        followed = read_mask(by_key[pair.request.reference], side)
        cells = raw_mask(followed, data.grid) > 0
        away = ~binary_dilation(mask, iterations=REACH)
        inner = cells & ~binary_erosion(cells, iterations=REACH, border_value=1) & away
        outer = binary_dilation(cells, iterations=REACH) & ~cells & away
        found["step"] += difference(pair.image, inner, outer)
        found["step_bases"] += difference(base, inner, outer)
        found["contrast"] += contrast(pair.image, mask)
        found["empty"].append(float(not mask.any()))
        found["share"].append(float(mask.mean()))
        found["share_references"].append(float((followed > 0).mean()))
    for sample in (s for s in samples if s.defect == defect):
        found["contrast_real"] += contrast(read_image(sample, side), read_mask(sample, side) > 0)
    return found


def contrast(image, mask):
    return difference(image, mask, binary_dilation(mask, iterations=REACH) & ~mask, fewest=1)


def difference(image, one, other, fewest=FEWEST):
    """Of mean brightness, as a list of one; of none where there is too little to compare."""
    if min(one.sum(), other.sum()) < fewest:
        return []
    grey = image.astype(float).mean(2)
    return [abs(grey[one].mean() - grey[other].mean())]


def over(found):
    """Means, and the number of empty masks."""
    rows = list(found)
    joined = {name: [value for row in rows for value in row[name]] for name in rows[0]}
    return {
        name: int(sum(values)) if name == "empty" else round(float(np.mean(values)), 4 if "share" in name else 2)
        for name, values in joined.items()
        if values
    }


if __name__ == "__main__":
    main()
