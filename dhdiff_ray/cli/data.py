"""``data``: which datasets there are, what a folder holds, and a small one made on the spot."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table

app = options.group("data", "Look at datasets, or make a small one.")


@app.command("list")
def list_datasets(as_json: options.Json = False) -> None:
    """List the dataset loaders there are.

    Example: dhdiff-ray data list
    """
    from dhdiff_ray.data.registry import dataset_names, open_dataset

    found = [(name, open_dataset(name)) for name in dataset_names()]
    value = [{"name": name, "licence": loader.licence, "source": loader.source} for name, loader in found]
    rows = [(entry["name"], entry["licence"], entry["source"]) for entry in value]
    Output(as_json).data(value, table=table("", ("name", "licence", "source"), rows))


@app.command("scan")
def scan(
    root: Annotated[Path, typer.Option(help="Folder of the dataset as downloaded.")],
    dataset: Annotated[str, typer.Option(help="A dataset loader, or a .py file with one.")] = "mvtec",
    category: options.Categories = None,
    as_json: options.Json = False,
) -> None:
    """Count the images of a dataset by category and defect.

    Example: dhdiff-ray data scan --dataset mvtec --root data/mvtec
    """
    from dhdiff_ray.data.registry import open_dataset

    samples = open_dataset(dataset).scan(root.expanduser().resolve(), category or ())
    counts = Counter((s.category, s.defect, s.subset) for s in samples)
    masks = Counter((s.category, s.defect, s.subset) for s in samples if s.mask)
    names = ("category", "defect", "subset", "images", "masks")
    value = [dict(zip(names, (*key, n, masks[key]), strict=True)) for key, n in sorted(counts.items())]
    Output(as_json).data(value, table=table("", names, [tuple(row.values()) for row in value]))


@app.command("make")
def make(
    root: Annotated[Path, typer.Option(help="Folder to write to.")],
    resolution: Annotated[int, typer.Option(min=16, help="Side of the images in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Draw a small dataset with exact masks, in MVTec's layout.

    Example: dhdiff-ray data make --root data/drawn, then --dataset procedural --root data/drawn
    """
    from dhdiff_ray.data.datasets.procedural import generate

    folder = root.expanduser().resolve()
    generate(folder, resolution=resolution, seed=seed)
    Output(as_json).data({"root": str(folder), "resolution": resolution, "seed": seed}, text=str(folder))
