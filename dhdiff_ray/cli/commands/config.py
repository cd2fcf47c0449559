"""``config``: every knob, its value, and where that came from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output
from dhdiff_ray.cli.resolve import Typed, resolve

app = options.group("config", "Look at the configuration.")


@app.callback()
def config() -> None:
    """Look at the configuration."""


@app.command("show")
def show(
    recipe: options.Recipe = None,
    preset: options.Preset = None,
    dataset: options.DatasetName = None,
    root: options.Root = None,
    category: options.Categories = None,
    run: Annotated[str | None, typer.Option(help="Show what this run was made with.", show_default=False)] = None,
    storage: options.Storage = None,
    sets: options.Sets = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the configuration that these words would give.

    Example: dhdiff-ray config show jobs/demo.toml --set train.steps=60 --origin
    """
    from dhdiff_ray.config.load import field_names, load_config

    typed = Typed(recipe, preset, dataset, root, category, run, storage, sets)
    if run:
        loaded = resolve("config", typed)
    else:
        loaded = load_config(recipe, preset=preset, flags=typed.flags(), sets=tuple(sets or ()))
    values = loaded.config.model_dump(mode="json")
    lines, origins, section = [], {}, ""
    for dotted in field_names():
        head, name = dotted.split(".")
        if head != section:
            section = head
            lines.append(("\n" if lines else "") + f"[{head}]")
        origins[dotted] = loaded.origins.get(dotted, "default")
        text = f"{name} = {json.dumps(values[head][name], ensure_ascii=False)}"
        lines.append(f"{text:<44}# {origins[dotted]}" if origin else text)
    document = {"config": values, "origins": origins} if origin else values
    Output(as_json).data(document, text="\n".join(lines))
