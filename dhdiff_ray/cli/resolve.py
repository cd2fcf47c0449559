"""From what was typed to one configuration; what a run already knows is not asked again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhdiff_ray.config import Config
    from dhdiff_ray.config.load import Loaded
    from dhdiff_ray.run.folder import RunFolder


@dataclass(frozen=True)
class Typed:
    """The flags that end up in the configuration."""

    recipe: Path | None = None
    preset: str | None = None
    dataset: str | None = None
    root: str | None = None
    categories: Sequence[str] | None = None
    run: str | None = None
    storage: str | None = None
    sets: Sequence[str] | None = None
    pairs: int | None = None

    def flags(self) -> dict[str, tuple[str, Any]]:
        """Dotted key -> (flag as typed, value)."""
        given = {
            "data.dataset": ("--dataset", self.dataset),
            "data.root": ("--root", self.root),
            "data.categories": ("--category", list(self.categories) if self.categories else None),
            "run.name": ("--run", self.run),
            "run.storage": ("--storage", self.storage),
            "synthesize.pairs_per_defect": ("--pairs", self.pairs),
        }
        return {key: pair for key, pair in given.items() if pair[1] is not None}


def run_folder(config: Config) -> RunFolder:
    """The run's folder.

    Raises:
        ConfigError: the run has no name or one that is no folder name.
    """
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.run.folder import RunFolder

    try:
        return RunFolder.of(config.run.storage, config.run.name)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def resolve(verb: str, typed: Typed, *, resume: bool = False) -> Loaded:
    """The configuration of a verb, with the origin of each value.

    ``train`` begins a run: its folder must not exist, unless it is resumed. ``all`` begins one or goes on with it. The
    other verbs go on with a run: its ``config.json`` lies below the recipe and the flags.

    Raises:
        ConfigError: anything that cannot be used; the message says what to type.
    """
    from dhdiff_ray.config.load import ConfigError, load_config

    def load(base: dict[str, Any] | None = None, moved: dict[str, tuple[str, Any]] | None = None) -> Loaded:
        return load_config(
            typed.recipe,
            preset=typed.preset,
            base=base,
            flags={**(moved or {}), **typed.flags()},
            sets=tuple(typed.sets or ()),
        )

    first = load()
    folder = run_folder(first.config)
    stored = folder.exists("config.json")
    if (verb == "train" and not resume) or (verb == "all" and not stored):
        if stored:
            raise ConfigError(
                f"the run {folder.uri} already exists; go on with it: --resume; or begin another: --run NEW_NAME"
            )
        if not first.config.data.root:
            raise ConfigError("where is the dataset? pass --root FOLDER (and --dataset NAME: dhdiff-ray data list)")
        return first
    if not stored:
        raise ConfigError(f"there is no run {folder.uri}{_others(folder)}; a run begins with: dhdiff-ray submit train")
    base = folder.read_json("config.json")
    here = {"run.storage": ("where it lies now", first.config.run.storage)}  # the folder may have been moved
    return load(base, here)


def check_dataset(config: Config) -> dict[str, int]:
    """Images per category, if the dataset can be seen from here; a wrong name fails before a job starts.

    Raises:
        DatasetError: the folder does not have the layout, or a category is unknown.
    """
    if "://" in config.data.root or not os.path.isdir(config.data.root):  # noqa: PTH112
        return {}
    from dhdiff_ray.data.registry import configured

    counts: dict[str, int] = {}
    for sample in configured(config.data).scan(Path(config.data.root), config.data.categories):
        counts[sample.category] = counts.get(sample.category, 0) + 1
    return counts


def defects_of(config: Config) -> dict[str, int]:
    """How many defects each category has, if the dataset can be seen from here."""
    if "://" in config.data.root or not os.path.isdir(config.data.root):  # noqa: PTH112
        return {}
    from dhdiff_ray.data.registry import configured

    found: dict[str, set[str]] = {}
    for sample in configured(config.data).scan(Path(config.data.root), config.data.categories):
        found.setdefault(sample.category, set()).update(set() if sample.is_good else {sample.defect})
    return {category: len(defects) for category, defects in found.items()}


def _others(folder: RunFolder) -> str:
    """What runs there are beside the one that is not there."""
    if not folder.is_local:
        return ""
    beside = Path(folder.path()).parent
    names = sorted(p.parent.name for p in beside.glob("*/config.json"))
    return f"; there are: {', '.join(names)}" if names else ""
