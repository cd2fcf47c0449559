"""``export``: a run's finished pairs, or a model, in the form another tool reads."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dhdiff_ray.cli import complete, options
from dhdiff_ray.cli.output import Output

Form = Literal["webdataset", "coco", "yolo", "folder"]
"""What other tools read."""


def export(
    run: Annotated[
        str, typer.Option(metavar="NAME", help="The run: one folder in the storage.", autocompletion=complete.runs)
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="A new folder or URI to write to.")],
    form: Annotated[
        Form, typer.Option("--format", metavar="FORM", help="webdataset, coco, yolo or folder.")
    ] = "webdataset",
    storage: options.Storage = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Pairs in one WebDataset shard.")] = 1000,
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Instead of pairs: a model that opens without this package.")
    ] = False,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            "-c",
            help="With --self-contained: which model.",
            metavar="NAME",
            autocompletion=complete.categories,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's pairs, or a model, in another tool's form.

    Pairs as WebDataset shards, COCO, YOLO boxes or a folder with a manifest; a model with its code.

    Example: dhdiff-ray export --run first --format coco --out first-coco

    Example: dhdiff-ray export --run first --self-contained -c bottle --out bottle
    """
    if self_contained:
        _export_model(Output(as_json), storage or "runs", run, category, out)
        return
    from dhdiff_ray.pairs.export import export as write
    from dhdiff_ray.run.folder import RunFolder

    done = write(RunFolder.of(storage or "runs", run), RunFolder.at(out), form, shard_size=shard_size)
    Output(as_json).data(done, text=f"{done['pairs']} pairs, {done['files']} files in {done['out']}")


def _export_model(output: Output, storage: str, run: str, category: str | None, out: str) -> None:
    """Write one model as a folder that diffusers opens by itself."""
    from pathlib import Path

    from dhdiff_ray.config import Config
    from dhdiff_ray.config.load import ConfigError, nearest
    from dhdiff_ray.model.bundle import write_self_contained
    from dhdiff_ray.pairs.published import as_whole
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.foundation import ADAPTERS
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.checkpoint import MARKER, is_trained

    folder = RunFolder.of(storage, run)
    trained = sorted({file.split("/")[1] for file in folder.files("models") if file.endswith(f"/{MARKER}")})
    if category is None or not is_trained(folder, category):
        wrong = "" if category is None else f"no model of {category!r}{nearest(category, trained)}; "
        raise ConfigError(f"{wrong}pass --category, one of: {', '.join(trained) or 'none is trained yet'}")
    # A whole model needs nothing of its run: an export still works where the run's configuration is lost.
    config = Run.stored(folder).config if folder.exists(f"models/{category}/{ADAPTERS}") else Config()
    with folder.fetched(f"models/{category}") as model, as_whole(model, config) as whole:
        write_self_contained(whole, Path(out))
    how = f"DiffusionPipeline.from_pretrained({out!r}, trust_remote_code=True)"
    output.data({"out": out, "category": category, "open": how}, text=f"{out}\nopen it with {how}")
