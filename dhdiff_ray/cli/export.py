"""``export``: a run's finished pairs in the form another tool reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output


class Form(StrEnum):
    """What other tools read."""

    webdataset = "webdataset"
    coco = "coco"
    yolo = "yolo"
    folder = "folder"


def export(
    run: Annotated[str, typer.Option(help="Name of the run: one folder in the storage.")],
    out: Annotated[str, typer.Option(help="A new folder or URI to write to.")],
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.webdataset,
    storage: options.Storage = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Pairs in one WebDataset shard.")] = 1000,
    as_json: options.Json = False,
) -> None:
    """Write a run's pairs as WebDataset shards, COCO, YOLO boxes, or a folder with a manifest.

    Example: dhdiff-ray export --run first --format coco --out first-coco
    """
    from dhdiff_ray.data.export import export as write
    from dhdiff_ray.storage import RunFolder

    done = write(RunFolder.of(storage or "runs", run), RunFolder.at(out), form.value, shard_size=shard_size)
    Output(as_json).data(done, text=f"{done['pairs']} pairs, {done['files']} files in {done['out']}")
