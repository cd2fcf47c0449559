"""A sheet to look at: the same requests drawn with their own reference, with another's and with none.

    python -m benchmarks.reference_picture STORAGE RUN CATEGORY OUT.png

From top to bottom: the references, the products, and for each of the three what was made and its mask; the noise is
the same. ``benchmarks.behaviour --only reference`` has the figures.
"""

import argparse
import random

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.behaviour import with_references
from benchmarks.trained_run import opened
from dhdiff_ray.data.images import read_image
from dhdiff_ray.pairs.plan import plan
from dhdiff_ray.pairs.published import open_model

PAIRS, SIDE, MARGIN = 8, 96, 170
"""Columns, side of each picture in pixels, and room for the words."""


def main():
    arguments = argparse.ArgumentParser()
    for name in ("storage", "run", "category", "out"):
        arguments.add_argument(name)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    config, folder, split = opened(asked.storage, asked.run)
    samples = {s.key: s for s in split.category(asked.category).train}
    pipeline = open_model(folder.local(f"models/{asked.category}"), config)
    requests = random.Random(0).sample(plan(config, split, asked.category), PAIRS)
    side = config.data.resolution
    rows = [
        ("reference", [read_image(samples[r.reference], side) for r in requests]),
        ("product", [read_image(samples[r.base], side) for r in requests]),
    ]
    answers = with_references(config, pipeline, list(samples.values()), requests)
    for words, pairs in zip(("with it", "with the one before's", "with none"), answers, strict=True):
        rows += [(words, [p.image for p in pairs]), ("its mask", [np.repeat(p.mask[..., None], 3, 2) for p in pairs])]
    sheet(rows).quantize(128).save(asked.out, optimize=True)


def sheet(rows):
    """Rows of pictures with their words at the left."""
    page = Image.new("RGB", (MARGIN + PAIRS * SIDE, len(rows) * SIDE), "white")
    draw = ImageDraw.Draw(page)
    for number, (words, pictures) in enumerate(rows):
        draw.text((8, number * SIDE + SIDE // 2 - 8), words, fill="black", font_size=15)
        for column, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(small, (MARGIN + column * SIDE, number * SIDE))
    return page


if __name__ == "__main__":
    main()
