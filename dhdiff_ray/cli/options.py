"""Options that several commands share, so that one flag means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def datasets(incomplete: str) -> list[str]:
    """Names of dataset loaders that begin so, for the shell's completion."""
    from dhdiff_ray.data.registry import dataset_names

    return [name for name in dataset_names() if name.startswith(incomplete)]


Recipe = Annotated[Path | None, typer.Argument(help="A TOML recipe such as jobs/demo.toml.", show_default=False)]
Preset = Annotated[str | None, typer.Option(help="Model and training to start from: tiny, ...", show_default=False)]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="A dataset loader, or a .py file with one.", show_default=False, autocompletion=datasets
    ),
]
Root = Annotated[str | None, typer.Option(help="Folder of the dataset as downloaded.", show_default=False)]
Categories = Annotated[
    list[str] | None,
    typer.Option("--category", "-c", help="Only this category; may be repeated.", show_default=False),
]
Run = Annotated[str | None, typer.Option(help="Name of the run: one folder in the storage.", show_default=False)]
Storage = Annotated[
    str | None, typer.Option(help="Folder or URI (s3://, gs://) that holds runs. [default: runs]", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any knob: train.steps=60; may be repeated.", metavar="KEY=VALUE", show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A cluster: http://HOST:8265, or a name (local: that of `cluster up`); else RAY_ADDRESS; else a private "
        "one is started."
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Use a cluster that asks nobody for a token, though others can reach it.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def group(name: str, text: str) -> typer.Typer:
    """A group of commands; plain help, because drawing boxes costs as much start-up time as all the rest."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def address_or_environment(address: str | None) -> str | None:
    """The cluster to use: the flag (an address, or a name from the profiles), else Ray's own variables, else none."""
    import os

    from dhdiff_ray.cli.profiles import resolved

    if address:
        return resolved(address)
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


def needed_address(address: str | None) -> str:
    """As above where a cluster must exist already.

    Raises:
        ConfigError: neither the flag nor a variable names one.
    """
    found = address_or_environment(address)
    if not found:
        from dhdiff_ray.config.load import ConfigError

        raise ConfigError(
            "which cluster? pass --address http://HOST:8265 or set RAY_ADDRESS; to start one that stays: "
            "dhdiff-ray cluster up, and then: --address local"
        )
    return found
