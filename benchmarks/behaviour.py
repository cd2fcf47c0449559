"""Does a trained run follow its words, its reference, its control and its base?

    python -m benchmarks.behaviour STORAGE RUN [JUDGE]

Words: the same request with the word of another defect of the product, all else alike. Reference: the same request is
drawn twice with the same noise, once with its own reference and once with another's; if the reference is followed, the
first result is nearer to its own reference inside the raw mask. Control: boxes, points and detailed masks at places the
run never saw. Base: what changes outside the made mask, and what a localiser trained on real pairs (of the run JUDGE,
or of RUN itself; left out where neither has one) sees on the raw mask's border.
"""

import argparse
import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats

from benchmarks.trained_run import opened
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import drawn_control, raw_mask
from dhdiff_ray.detector.evaluate import predict
from dhdiff_ray.detector.unet import from_bytes
from dhdiff_ray.pairs.make import OwnPictures, finished, prepare
from dhdiff_ray.pairs.plan import plan
from dhdiff_ray.pairs.published import open_model
from dhdiff_ray.run.folder import RunFolder

PAIRS = 24
BATCH = 8


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("storage")
    arguments.add_argument("run")
    arguments.add_argument("judge", nargs="?", help="the run whose localiser of real pairs judges the border")
    arguments.add_argument("--only", choices=("words", "reference", "control", "base"), help="measure this alone")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    config, folder, split = opened(asked.storage, asked.run)
    figures = {"run": asked.run, "steps": config.train.steps, "pairs": PAIRS, "resolution": config.data.resolution}
    for category in [c for c in split.categories if folder.exists(f"models/{c}/dhdiff.json")]:
        pipeline = open_model(folder.local(f"models/{category}"), config)
        own = split.category(category)
        requests = plan(config, split, category)
        requests = random.Random(0).sample(requests, min(PAIRS, len(requests)))
        judge = localiser(RunFolder.of(asked.storage, asked.judge or asked.run), category)
        looks = {"words": words, "reference": reference, "control": control, "base": partial(base, judge=judge)}
        about = (config, pipeline, own.train, requests)
        figures[category] = {n: look(*about) for n, look in looks.items() if asked.only in (None, n)}
        print(category, json.dumps(figures[category], indent=2))
    result = Path(__file__).parent / "results" / f"behaviour_{asked.run}.json"
    result.write_text(json.dumps(figures, indent=2) + "\n")


def localiser(folder, category):
    """What learned from real pairs, or None."""
    name = f"detectors/{category}/real.safetensors"
    return from_bytes(folder.read_bytes(name)) if folder.exists(name) else None


def batches(requests):
    return [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]


def drawn(config, pipeline, samples, requests, **changed):
    pairs = []
    for unit in batches(requests):
        ready = prepare(unit, config, samples)
        pairs += finished(unit, ready, pipeline(**ready.call, **changed))
    return pairs


def words(config, pipeline, samples, requests):
    """How much another defect's word changes inside the raw mask (grey values of 255), and the mask's area."""
    names = sorted({s.defect for s in samples if not s.is_good})
    changes, areas, moved = [], [], []
    for unit in batches(requests):
        answers = []
        for shift in (0, 1):
            asked = [names[(names.index(r.defect) + shift) % len(names)] for r in unit]
            ready = prepare(unit, config, samples)  # fresh generators
            said = {"prompt": [prompt(r.category, d) for r, d in zip(unit, asked, strict=True)]}
            said["defect"] = [defect_words(d) for d in asked]
            answers.append(finished(unit, ready, pipeline(**ready.call | said)))
        by_key = {s.key: s for s in samples}
        for own, other in zip(*answers, strict=True):
            mask = read_mask(by_key[own.request.reference], config.data.resolution)
            cells = raw_mask(mask, config.data.grid) > 0
            changes.append(np.abs(own.image[cells].astype(float) - other.image[cells].astype(float)).mean())
            areas.append((own.mask[cells] > 0).mean())
            moved.append(((own.mask > 0) ^ (other.mask > 0))[cells].mean())
    return {
        "mean_absolute_difference": round(float(np.mean(changes)), 2),
        "mask_share_of_cells": round(float(np.mean(areas)), 3),
        "mask_share_that_changed": round(float(np.mean(moved)), 3),
    }


def with_references(config, pipeline, samples, requests):
    """The requests' pairs with their own references, with the one before's, and with none; the same noise in all."""
    ready = prepare(requests, config, samples)
    shown = ready.call["reference"]
    answers = []
    for given in (shown, shown.roll(1, 0), torch.full_like(shown, 127 / 127.5 - 1)):
        again = prepare(requests, config, samples)  # fresh generators
        answers.append(finished(requests, ready, pipeline(**{**again.call, "reference": given})))
    return answers


def reference(config, pipeline, samples, requests):
    """Distance of the made cells to their own reference, with it and with a wrong one given."""
    by_key = {s.key: s for s in samples}
    side, grid = config.data.resolution, config.data.grid
    right, wrong, blank = [], [], []
    for unit in batches(requests):
        answers = with_references(config, pipeline, samples, unit)
        for i, request in enumerate(unit):
            truth = read_image(by_key[request.reference], side).astype(float)
            cells = raw_mask(read_mask(by_key[request.reference], side), grid) > 0
            for kept, pairs in zip((right, wrong, blank), answers, strict=True):
                kept.append(np.abs(pairs[i].image[cells].astype(float) - truth[cells]).mean())
    right, wrong, blank = map(np.array, (right, wrong, blank))
    test = stats.ttest_rel(wrong, right)
    return {
        "mean_absolute_difference_own": round(float(right.mean()), 2),
        "other": round(float(wrong.mean()), 2),
        "none": round(float(blank.mean()), 2),
        "own_is_nearer_in": round(float((right < wrong).mean()), 3),
        "paired_t_p_value": float(test.pvalue),
    }


def control(config, pipeline, samples, requests):
    """How the made mask lies to what was drawn: share inside the drawing grown by a cell, IoU with its dilation."""
    side, grid = config.data.resolution, config.data.grid
    cell = side // grid
    found = {}
    for kind in ("point", "box", "detailed"):
        inside, ious, empty = [], [], 0
        for number, request in enumerate(requests):
            draw = random.Random(number)
            x, y = draw.randrange(cell, side - 2 * cell), draw.randrange(cell, side - 2 * cell)
            if kind == "point":
                mask = drawn_control([(x, y)], [], side, grid)
            elif kind == "box":
                mask = drawn_control([], [(x, y, x + cell, y + cell)], side, grid)
            else:
                rows, columns = np.mgrid[:side, :side]
                disc = ((columns - x - cell / 2) / cell) ** 2 + ((rows - y - cell / 2) / (cell / 2)) ** 2 < 0.6
                mask = disc.astype(np.uint8) * 255
            ready = prepare([request], config, samples, [OwnPictures(control=mask)])
            (pair,) = finished([request], ready, pipeline(**ready.call))
            made = pair.mask > 0
            if not made.any():
                empty += 1
                continue
            near = ndimage.binary_dilation(mask > 0, iterations=max(1, side // 64))
            grown = ndimage.binary_dilation(mask > 0, np.ones((3, 3)), iterations=cell)
            inside.append((made & grown).sum() / made.sum())
            ious.append((made & near).sum() / (made | near).sum())
        found[kind] = {
            "inside_grown_by_a_cell": round(float(np.mean(inside)), 3) if inside else None,
            "iou_with_dilated": round(float(np.mean(ious)), 3) if ious else None,
            "empty": empty,
        }
    return found


def base(config, pipeline, samples, requests, judge):
    """What is left of the base, by mode.

    Mean absolute difference (of 255) to the base outside the made mask grown by 5 % of the side; by how much mean
    brightness jumps along the raw mask's edge away from the made mask, and how much of that border the judge takes for
    a defect, both in the pair and in the base itself.
    """
    by_key = {s.key: s for s in samples}
    side, found = config.data.resolution, {}
    modes = {"clean": ("noise", 1.0, "clean"), "keep": ("noise", 1.0, "keep"), "start_base_0.9": ("base", 0.9, "free"),
             "start_base_0.5": ("base", 0.5, "free")}  # fmt: skip
    for name, (start, strength, background) in modes.items():
        settings = {"start": start, "strength": strength, "background": background}
        changed = config.model_copy(update={"synthesize": config.synthesize.model_copy(update=settings)})
        outside, untouched, border, border_of_base, steps = [], [], [], [], []
        for pair in drawn(changed, pipeline, samples, requests):
            near = ndimage.binary_dilation(pair.mask > 0, iterations=max(1, round(0.05 * side)))
            truth = read_image(by_key[pair.request.base], side)
            difference = np.abs(pair.image.astype(float) - truth.astype(float))
            cells = raw_mask(read_mask(by_key[pair.request.reference], side), config.data.grid) > 0
            outside.append(difference[~near].mean())
            if not cells.all():
                untouched.append(difference[~cells].max())
            if step := steps_along(cells, ~near, pair.image, truth):
                steps.append(step)
            if judge is not None:
                wide = max(1, side // 32)
                seam = ndimage.binary_dilation(cells, iterations=wide) ^ ndimage.binary_erosion(cells, iterations=wide)
                seam &= ~near
                seen = predict(judge, np.stack([pair.image, truth])) > 0.5
                border.append(seen[0][seam].mean() if seam.any() else 0.0)
                border_of_base.append(seen[1][seam].mean() if seam.any() else 0.0)
        found[name] = {
            "mean_absolute_difference": round(float(np.mean(outside)), 2),
            "largest_difference_outside_the_raw_mask": float(np.max(untouched)) if untouched else None,
        }
        if steps:
            made, real = np.mean(steps, axis=0)
            found[name] |= {
                "brightness_step": round(float(made), 2),
                "brightness_step_in_the_base": round(float(real), 2),
            }
        if judge is not None:
            found[name] |= {
                "border_seen_as_defect": round(float(np.mean(border)), 4),
                "the_same_in_the_base": round(float(np.mean(border_of_base)), 4),
            }
    return found


def steps_along(cells, far, *images):
    """Mean grey value just inside an edge minus just outside, without sign, of each image; none where too few count."""
    wide = max(1, cells.shape[0] // 42)
    inside = cells & ~ndimage.binary_erosion(cells, iterations=wide, border_value=1) & far
    outside = ndimage.binary_dilation(cells, iterations=wide) & ~cells & far
    if min(inside.sum(), outside.sum()) < 50:
        return []
    greys = [image.astype(float).mean(2) for image in images]
    return [abs(grey[inside].mean() - grey[outside].mean()) for grey in greys]


if __name__ == "__main__":
    main()
