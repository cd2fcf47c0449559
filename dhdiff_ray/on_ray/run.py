"""What every verb asks of a run first: its folder, its images, its categories, its split."""

from __future__ import annotations

from pathlib import Path

from dhdiff_ray.config import Config
from dhdiff_ray.config_layers import nearest
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.split import Split
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.records import Sample
from dhdiff_ray.storage import RunFolder


def run_folder(config: Config) -> RunFolder:
    """The run's folder."""
    return RunFolder.of(config.run.storage, config.run.name)


def scan(config: Config, events: Events) -> list[Sample]:
    """The dataset's images of the categories asked for."""
    root = Path(config.data.root)
    loader = open_dataset(config.data.dataset)
    samples = loader.scan(root, config.data.categories)
    events.emit("scanned", images=len(samples), dataset=loader.name, licence=loader.licence, root=str(root))
    return samples


def stored_split(folder: RunFolder, root: str) -> Split:
    """The run's split, checked against the files as they are now.

    Raises:
        ValueError: the run has none yet, or images changed since.
    """
    if not folder.exists("split.json"):
        raise ValueError(f"{folder.uri} has no split yet; train first: dhdiff-ray submit train --run NAME ...")
    split = Split.from_json(folder.read_json("split.json"))
    split.check(root)
    return split


def category_names(config: Config, split: Split) -> list[str]:
    """The categories to work on, in order.

    Raises:
        ValueError: one that the split does not have.
    """
    known = split.categories
    for name in config.data.categories:
        if name not in known:
            raise ValueError(f"no category {name!r} in this run{nearest(name, known)}; it has: {', '.join(known)}")
    return sorted(config.data.categories) or known
