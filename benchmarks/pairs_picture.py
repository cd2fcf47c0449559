"""The README's picture: made images of a run, each with its mask beside it.

    python -m benchmarks.pairs_picture RUN_FOLDER [RUN_FOLDER ...] [--out docs/pairs.png] [--columns 4]

A row for each category and defect, taken in turn until ``--rows`` are there; in each the first pairs whose mask is not
empty. Nothing is chosen by how it looks.
"""

import argparse
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE, GAP, HEAD = 128, 6, 20
"""Side of a picture, room between pairs, and room for a row's words, in pixels."""


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("docs/pairs.png"))
    arguments.add_argument("--columns", type=int, default=4)
    arguments.add_argument("--rows", type=int, default=4)
    asked = arguments.parse_args()
    rows = list(defects([run / "pairs" for run in asked.runs], asked.columns))[: asked.rows]
    if not rows:
        arguments.error(f"no pairs below {', '.join(map(str, asked.runs))}; make some: dhdiff-ray submit synthesize")
    sheet(rows, asked.columns).quantize(256).save(asked.out, optimize=True)
    print(asked.out)


def defects(trees, columns):
    """Words and pairs of each row: the first defect of every category, then the second, and so on."""
    folders = [
        sorted((c / "test").iterdir()) for tree in trees for c in sorted(tree.iterdir()) if (c / "test").is_dir()
    ]
    for turn in zip_longest(*([f for f in folder if f.name != "good"] for folder in folders)):
        for folder in filter(None, turn):
            pairs = [pair for image in sorted(folder.glob("*.png")) if (pair := read(image))][:columns]
            if pairs:
                yield f"{folder.parent.parent.name}, {folder.name}", pairs


def read(image):
    """A made image and its mask, enlarged; nothing where the mask is empty."""
    mask = image.parent.parent.parent / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
    with Image.open(image) as made, Image.open(mask) as drawn:
        if not np.asarray(drawn).any():
            return None
        way = Image.Resampling.NEAREST if made.width < SIDE else Image.Resampling.LANCZOS
        return made.convert("RGB").resize((SIDE, SIDE), way), drawn.convert("RGB").resize((SIDE, SIDE), way)


def sheet(rows, columns):
    """All rows under each other, each under its words."""
    page = Image.new("RGB", (columns * (2 * SIDE + GAP) - GAP, len(rows) * (SIDE + HEAD)), "white")
    draw = ImageDraw.Draw(page)
    for number, (words, pairs) in enumerate(rows):
        top = number * (SIDE + HEAD)
        draw.text((2, top + 2), words, fill="black", font_size=14)
        for column, pair in enumerate(pairs):
            for at, picture in enumerate(pair):
                page.paste(picture, (column * (2 * SIDE + GAP) + at * SIDE, top + HEAD))
    return page


if __name__ == "__main__":
    main()
