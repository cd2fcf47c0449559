"""What can be known before Ray starts is told then: one line, what to type, exit code 2.

Not in the paper. Decided: a job on this machine sees what this command sees, so folders, weights and packages are
looked at; what a cluster elsewhere sees cannot be known from here, so there only what is missing everywhere is told.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dhdiff_ray.cli.resolve import samples_here

if TYPE_CHECKING:
    from dhdiff_ray.config import Config
    from dhdiff_ray.config.load import Loaded
    from dhdiff_ray.records import Sample

TRAINS = ("train", "all", "ablate")
DRAWS = ("synthesize", "all")
AUTOENCODER = ("taef2_encoder.pth", "taef2_decoder.pth")
BACKBONE = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""Folders of a Stable Diffusion in diffusers' layout."""


def check_door(verb: str, loaded: Loaded, here: bool) -> list[Sample]:
    """Refuse what a verb cannot do; returns the dataset's images where it begins a run and they can be seen.

    Args:
        verb: what is asked for.
        loaded: its configuration.
        here: whether the job would run on this machine.

    Raises:
        ConfigError: the first thing that is missing, and what to type.
    """
    from dhdiff_ray.config.load import ConfigError

    config = loaded.config
    try:
        if here:
            _check_storage(config)
            _check_root(config)
        samples = samples_here(config) if verb in TRAINS else []
        _check_categories(config)
        if verb in TRAINS and not _is_all_trained(config, samples):
            _check_model(loaded, here)
        if here and verb in DRAWS:
            _check_under(config)
        if here:
            _check_packages(verb, config)
            _check_cores(verb, config)
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(error)) from None
    return samples


def _check_storage(config: Config) -> None:
    """The run's folder can be made and written to."""
    if "://" in config.run.storage:
        return
    place = Path(config.run.storage).expanduser().resolve() / config.run.name
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"--storage {config.run.storage} cannot hold runs: {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {place}; choose another folder (--storage FOLDER), or mend its permissions")


def _check_root(config: Config) -> None:
    """The dataset's folder is there."""
    root = config.data.root
    if root and "://" not in root and not Path(root).expanduser().is_dir():
        raise ValueError(f"there is no dataset in {root}: no such folder; pass where it lies: --root FOLDER")


def _check_categories(config: Config) -> None:
    """The run has the categories that are asked for."""
    from dhdiff_ray.run.run import SPLIT, Run

    run = Run(config)
    if config.data.categories and run.folder.exists(SPLIT):
        _ = run.categories


def _is_all_trained(config: Config, samples: list[Sample]) -> bool:
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.checkpoint import is_trained

    categories, folder = {sample.category for sample in samples}, Run(config).folder
    return bool(categories) and all(is_trained(folder, category) for category in categories)


def _check_model(loaded: Loaded, here: bool) -> None:
    """What a model is begun from is there."""
    from dhdiff_ray.run.foundation import is_ours
    from dhdiff_ray.run.run import Run

    model = loaded.config.model
    if model.backbone:
        ours = Run(loaded.config).foundation is not None if here else is_ours(loaded.config)
        if here and not ours:
            _check_backbone(model.backbone)
        return
    if "preset sd15" in loaded.origins.values():
        raise ValueError(
            "preset sd15 starts from a Stable Diffusion 1.x: pass --set model.backbone=FOLDER_OR_HUB_ID; without one "
            "there are --preset tiny and taef2"
        )
    if model.autoencoder != "taef2":
        return
    folder = Path(model.autoencoder_weights).expanduser()
    missing = [name for name in AUTOENCODER if not (folder / name).is_file()] if here else []
    if missing or not model.autoencoder_weights:
        where = f"there is no {missing[0]} in {folder}" if model.autoencoder_weights else "its folder is not named"
        raise ValueError(
            f"model.autoencoder = taef2 needs its two files ({', '.join(AUTOENCODER)}) and {where}; get them from "
            "https://github.com/madebyollin/taesd and pass --set model.autoencoder_weights=FOLDER"
        )


def _check_under(config: Config) -> None:
    """What trained models are adapters over is there."""
    from dhdiff_ray.run.damage import DamagedError
    from dhdiff_ray.run.foundation import ADAPTERS, foundation_under
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.checkpoint import is_trained, model_facts

    folder = Run(config).folder
    for category in folder.folders("models"):
        if is_trained(folder, category) and folder.exists(f"models/{category}/{ADAPTERS}"):
            try:
                facts = model_facts(folder, category)
            except DamagedError:
                continue  # its own turn tells it; here it would stop the others
            foundation_under(facts, config)
            return  # a run has one foundation


def _check_backbone(name: str) -> None:
    """A folder with every part, or a hub id that lies in the cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if missing := [part for part in BACKBONE if not (folder / part).is_dir()]:
            raise ValueError(
                f"model.backbone = {name} has no folder {missing[0]}; give a Stable Diffusion 1.x as diffusers has it: "
                f"{', '.join(BACKBONE)}"
            )
        return
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"model.backbone = {name} is neither a folder nor a hub id such as owner/name")
    if os.environ.get("HF_HUB_OFFLINE", "1") == "0":
        return
    from huggingface_hub.constants import HF_HUB_CACHE

    if not (Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        raise ValueError(
            f"model.backbone = {name} is no folder and not in the hub's cache ({HF_HUB_CACHE}); give a folder, or "
            "let it be fetched: HF_HUB_OFFLINE=0"
        )


def _check_packages(verb: str, config: Config) -> None:
    """What the verb imports and loads is installed."""
    from dhdiff_ray.detector import kinds
    from dhdiff_ray.metrics.features.choose import check_files
    from dhdiff_ray.training import trackers

    if verb in ("detect", "all", "ablate"):
        kinds.refuse_missing(config.detect.network)
    if verb in ("train", "all"):
        trackers.refuse_missing(config.train.trackers)
    if verb in ("score", "all"):
        check_files(config.score)


def _check_cores(verb: str, config: Config) -> None:
    """This machine has the cores that one worker needs; its GPUs are for Ray to find."""
    from dhdiff_ray.on_ray.cluster.checks import check_room, resources

    need = resources(verb, config)
    check_room([{"CPU": float(os.cpu_count() or 1), "GPU": need.get("GPU", 0) * need.get("workers", 1)}], verb, config)
