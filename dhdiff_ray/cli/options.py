"""Options that several commands share, so that one flag means one thing everywhere, and how they are bound.

Options that travel together are a frozen dataclass; ``spread`` lets a command take it as one parameter.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from dhdiff_ray.cli import complete

if TYPE_CHECKING:
    from dhdiff_ray.config import Config


RUN, IMAGES, KNOBS, CLUSTER = "Which run", "Which images", "With what", "Where and how"
"""Sections of a long help."""


def option(section: str, text: str, *flags: str, **settings: Any) -> Any:
    """An option in a section of the help; ``flags`` where they are not the parameter's name."""
    return typer.Option(*flags, help=text, rich_help_panel=section, **{"show_default": False, **settings})


DATASET = "How images are laid out: mvtec, folder, ...; or a .py file."

Recipe = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="A TOML recipe such as jobs/demo.toml.", show_default=False)
]
Run = Annotated[
    str | None,
    option(RUN, "The run: one folder in the storage.", metavar="NAME", autocompletion=complete.runs),
]
Storage = Annotated[
    str | None, option(RUN, "Folder or URI (s3://, gs://) that holds runs. [default: runs]", metavar="FOLDER")
]
DatasetName = Annotated[
    str | None,
    option(IMAGES, DATASET, "--dataset", metavar="NAME", autocompletion=complete.datasets),
]
Root = Annotated[str | None, option(IMAGES, "The dataset's folder, as downloaded.", metavar="FOLDER")]
Categories = Annotated[
    list[str] | None,
    option(
        IMAGES,
        "Only this product; may be repeated.",
        "--category",
        "-c",
        metavar="NAME",
        autocompletion=complete.categories,
    ),
]
Preset = Annotated[
    str | None,
    option(KNOBS, "Where to start from: tiny, taef2 or sd15.", metavar="NAME", autocompletion=complete.presets),
]
Sets = Annotated[
    list[str] | None, option(KNOBS, "Change a knob: train.steps=60; may be repeated.", "--set", metavar="KEY=VALUE")
]
Pairs = Annotated[int | None, option(KNOBS, "Pairs per defect.", "--pairs", "-n", min=1, metavar="N")]
MinIou = Annotated[
    float | None,
    option(KNOBS, "Redraw pairs whose mask agrees less. [default: 0]", "--filter", min=0, max=1, metavar="IOU"),
]
Address = Annotated[
    str | None,
    option(
        CLUSTER,
        "http://HOST:8265, or a name; local is that of `cluster up`. [default: RAY_ADDRESS, else a Ray of its own]",
        metavar="CLUSTER",
    ),
]
Insecure = Annotated[bool, option(CLUSTER, "Use a cluster that others reach without a token.", "--insecure")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


KEYS = {
    "data.dataset": "dataset",
    "data.root": "root",
    "data.categories": "category",
    "run.name": "run",
    "run.storage": "storage",
    "synthesize.pairs_per_defect": "pairs",
    "score.features": "features",
    "score.profile": "profile",
    "score.weights_dir": "weights_dir",
}
"""Knobs that have an option, and its name."""


@dataclass(frozen=True)
class Knobs:
    """Options that end up in the configuration."""

    def flags(self) -> dict[str, tuple[str, object]]:
        """Dotted key -> (flag as typed, value) of what was typed."""
        values = {key: (name, getattr(self, name, None)) for key, name in KEYS.items()}
        return {k: ("--" + name.replace("_", "-"), v) for k, (name, v) in values.items() if v is not None}

    def assignments(self) -> tuple[str, ...]:
        """``key=value`` of each ``--set``."""
        return tuple(getattr(self, "sets", None) or ())

    def load(self, *more: str) -> Config:
        """The configuration of these options alone; ``more`` are ``key=value`` that win."""
        from dhdiff_ray.config.load import load_config

        return load_config(flags=self.flags(), sets=(*self.assignments(), *more)).config


@dataclass(frozen=True)
class Typed(Knobs):
    """The options that say what a run is."""

    recipe: Recipe = None
    run: Run = None
    storage: Storage = None
    dataset: DatasetName = None
    root: Root = None
    category: Categories = None
    preset: Preset = None
    sets: Sets = None


@dataclass(frozen=True)
class TypedPairs(Typed):
    """The same where pairs are drawn."""

    pairs: Pairs = None
    min_iou: MinIou = None

    def assignments(self) -> tuple[str, ...]:
        """``key=value`` of each ``--set``, and of ``--filter``, which wins over them."""
        return super().assignments() + (() if self.min_iou is None else (f"synthesize.min_iou={self.min_iou}",))


@dataclass(frozen=True)
class JobOptions:
    """How a job is sent and followed."""

    resume: Annotated[bool, option(RUN, "Go on with what the run already has.", "--resume")] = False
    address: Address = None
    insecure: Insecure = False
    check: Annotated[
        bool, option(CLUSTER, "Refuse what the cluster cannot hold now. [default: check]", "--check/--no-check")
    ] = True
    dry_run: Annotated[
        bool, option(CLUSTER, "Show what would be sent and what it needs; send nothing.", "--dry-run")
    ] = False
    hourly: Annotated[
        float | None,
        option(
            CLUSTER, "With --dry-run: money for a GPU hour; without GPUs, a core hour.", "--price", min=0, metavar="X"
        ),
    ] = None
    detach: Annotated[bool, option(CLUSTER, "Send the job and do not follow it.", "--detach")] = False
    verbose: Annotated[bool, option(CLUSTER, "Show the job's whole log.", "--verbose", "-v")] = False
    as_json: Json = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take a dataclass of options as one parameter: typer sees the dataclass's fields in its place."""
    hints = get_type_hints(command, include_extras=True)
    bundles: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = bundles.get(parameter.name)
        types = get_type_hints(kind, include_extras=True) if kind else hints
        for one in inspect.signature(kind).parameters.values() if kind else (parameter,):
            parameters.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types[one.name]))

    def gathered(**words: Any) -> None:
        for name, kind in bundles.items():
            words[name] = kind(**{field.name: words.pop(field.name) for field in fields(kind)})
        command(**words)

    gathered.__doc__, gathered.__module__ = command.__doc__, command.__module__
    gathered.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return gathered


def address_or_environment(address: str | None) -> str | None:
    """The cluster to use: the flag (an address, or a name from the profiles), else Ray's own variables, else none."""
    from dhdiff_ray.cli.profiles import resolved

    if address:
        return resolved(address)
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


def needed_address(address: str | None) -> str:
    """As above where a cluster must exist already.

    Raises:
        ConfigError: neither the flag nor a variable names one.
    """
    cluster = address_or_environment(address)
    if not cluster:
        from dhdiff_ray.config.load import ConfigError

        raise ConfigError(
            "which cluster? pass --address http://HOST:8265 or set RAY_ADDRESS; to start one that stays: "
            "dhdiff-ray cluster up, and then: --address local"
        )
    return cluster
