"""Turn what was typed into one configuration; settings that a run was begun with need not be typed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhdiff_ray.cli.options import Typed
    from dhdiff_ray.config import Config
    from dhdiff_ray.config.load import Loaded
    from dhdiff_ray.records import Sample
    from dhdiff_ray.run.folder import RunFolder


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

    def load(base: dict[str, Any] | None = None, moved: tuple[str, str] | None = None) -> Loaded:
        loaded = load_config(
            typed.recipe,
            preset=typed.preset,
            base=base,
            flags=({"run.storage": moved} if moved else {}) | typed.flags(),
            sets=typed.assignments(),
        )
        return _seen_from_anywhere(loaded)

    first = load()
    folder = run_folder(first.config)
    stored = folder.exists("config.json")
    if (verb == "train" and not resume) or (verb == "all" and not stored):
        if stored:
            raise ConfigError(
                f"the run {folder.uri} already exists; go on with it: --resume; or begin another: --run NEW_NAME"
            )
        if verb == "all" and first.config.sources:
            raise ConfigError("a recipe with sources trains a foundation, which is not drawn from: submit train")
        places = [source.root for source in first.config.sources] or [""]
        if not first.config.data.root and not all(places):
            raise ConfigError("where is the dataset? pass --root FOLDER (and --dataset NAME: dhdiff-ray data list)")
        return first
    if not stored:
        raise ConfigError(f"there is no run {folder.uri}{_others(folder)}; a run begins with: dhdiff-ray submit train")
    # the folder may have been moved
    return load(folder.read_json("config.json"), ("where it lies now", first.config.run.storage))


def samples_here(config: Config) -> list[Sample]:
    """The dataset's images, if it can be seen from here; a wrong name fails before a job starts.

    Raises:
        DatasetError: the folder does not have the layout, or a category is unknown.
    """
    if config.sources:
        from dhdiff_ray.run.sources import named_sources, scan_sources

        roots = [data.root for data in named_sources(config).values()]
        if any("://" in root for root in roots) or not any(map(os.path.isdir, roots)):
            return []
        return [sample for samples in scan_sources(config).values() for sample in samples]
    if "://" in config.data.root or not os.path.isdir(config.data.root):  # noqa: PTH112
        return []
    from dhdiff_ray.data.registry import configured

    return configured(config.data).scan(Path(config.data.root), config.data.categories)


def _seen_from_anywhere(loaded: Loaded) -> Loaded:
    """A backbone in a folder here gets its whole path, since workers have another working directory."""
    from dhdiff_ray.config.load import with_values

    name = loaded.config.model.backbone
    path = Path(name).expanduser()
    if not name or path.is_absolute() or not (path / "model_index.json").is_file():
        return loaded
    changed = with_values(loaded.config, {"model.backbone": str(path.resolve())}, loaded.origins["model.backbone"])
    return loaded.model_copy(update={"config": changed})


def _others(folder: RunFolder) -> str:
    """What runs there are beside the one that is not there."""
    if not folder.is_local:
        return ""
    beside = Path(folder.path()).parent
    names = sorted(p.parent.name for p in beside.glob("*/config.json"))
    return f"; there are: {', '.join(names)}" if names else ""
