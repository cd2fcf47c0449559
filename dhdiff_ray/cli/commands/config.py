"""``config``: every knob, its value, and where the value came from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dhdiff_ray.cli.help import group
from dhdiff_ray.cli.options import Json, Typed, spread
from dhdiff_ray.cli.output import Output
from dhdiff_ray.cli.resolve import resolve

app = group("config", "Print every knob and where its value comes from.")


@app.command("show")
@spread
def show(
    typed: Typed,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    as_json: Json = False,
) -> None:
    """Print the configuration that these words would give.

    First the knobs that a user turns first, last those for research. With --run: what that run was made with.

    Example: dhdiff-ray config show jobs/demo.toml --set train.steps=60 --origin
    """
    from dhdiff_ray.config.base import Rank
    from dhdiff_ray.config.load import load_config, ranks

    if typed.run:
        loaded = resolve("config", typed)
    else:
        loaded = load_config(typed.recipe, preset=typed.preset, flags=typed.flags(), sets=typed.assignments())
    values = loaded.config.model_dump(mode="json")
    origins = {key: loaded.origins.get(key, "default") for key in ranks()}
    lines: list[str] = []
    for rank in Rank:
        lines.append(("\n" if lines else "") + f"# {rank}")
        for key in (key for key, its_rank in ranks().items() if its_rank is rank):
            section, _, name = key.partition(".")
            value = values[section][name] if name else values[section]
            text = f"{key} = {json.dumps(value, ensure_ascii=False)}"
            lines.append(f"{text:<44}# {origins[key]}" if origin else text)
    document = {"config": values, "origins": origins} if origin else values
    Output(as_json).data(document, text="\n".join(lines))
