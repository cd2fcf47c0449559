"""A run: a configuration, and the folder, split and categories that go with it, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import nearest
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.registry import configured
from dhdiff_ray.data.split import Split
from dhdiff_ray.records import Sample
from dhdiff_ray.run.folder import RunFolder

CONFIG = "config.json"
SPLIT = "split.json"


class Run:
    """One run; it travels to other processes as its configuration alone.

    Args:
        config: what a verb was asked.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def __reduce__(self) -> tuple[type[Run], tuple[Config]]:
        """What was read stays here: another process reads for itself."""
        return Run, (self.config,)

    @classmethod
    def stored(cls, folder: RunFolder) -> Run:
        """The run that lies in a folder, with the configuration it was begun with.

        Raises:
            ValueError: the folder is not a run.
        """
        if not folder.exists(CONFIG):
            raise ValueError(f"{folder.uri} is not a run: it has no {CONFIG}; train first: dhdiff-ray submit train ...")
        run = cls(Config.model_validate(folder.read_json(CONFIG)))
        run.folder = folder  # it may have been moved since
        return run

    @cached_property
    def folder(self) -> RunFolder:
        """Where everything of the run lies."""
        return RunFolder.of(self.config.run.storage, self.config.run.name)

    @cached_property
    def split(self) -> Split:
        """Which real image is trained on, and which is tested on, as it was written down.

        Raises:
            ValueError: the run has none yet.
        """
        if not self.folder.exists(SPLIT):
            raise ValueError(f"{self.folder.uri} has no split yet; train first: dhdiff-ray submit train --run NAME ...")
        return Split.from_json(self.folder.read_json(SPLIT))

    def check_split(self, settings: bool = True) -> Split:
        """The split, compared with the files as they are now and, with ``settings``, with what was asked.

        Raises:
            ValueError: images changed since, or another split was asked for.
        """
        if settings:
            self.split.check_settings(self.config.data)
        self.split.check(self.config.data.root)
        return self.split

    def category(self, name: str) -> Split:
        """The part of the split that belongs to one category.

        Raises:
            ValueError: there is no such category.
        """
        return self.split.category(name)

    @property
    def categories(self) -> list[str]:
        """The categories to work on, in order.

        Raises:
            ValueError: one is asked for that the split does not have.
        """
        there = self.split.categories
        for name in self.config.data.categories:
            if name not in there:
                raise ValueError(f"no category {name!r} in this run{nearest(name, there)}; it has: {', '.join(there)}")
        return sorted(self.config.data.categories) or there

    def scan(self, emit: Callable[..., None]) -> list[Sample]:
        """The dataset's images of the categories asked for; ``emit`` takes events."""
        root = local_root(self.config.data.root)
        loader = configured(self.config.data, lambda message: emit("warning", message=message))
        samples = loader.scan(root, self.config.data.categories)
        emit("scanned", images=len(samples), dataset=loader.name, licence=loader.licence, root=str(root))
        return samples

    def about_dataset(self) -> dict[str, Any]:
        """What is kept of the dataset with the split: its name, licence and source."""
        loader = configured(self.config.data)
        facts = {"dataset": loader.name, "licence": loader.licence, "source": loader.source}
        return {**facts, "non_commercial": loader.non_commercial}

    def model_facts(self, category: str, images: int) -> dict[str, Any]:
        """What is written beside a category's model that was trained on so many images."""
        split = self.category(category)
        return {
            "defects": sorted({s.defect for s in split.train if not s.is_good}),
            "training_images": images,
            "split_digest": split.digest,
            "images_licence": split.about.get("licence", "unknown"),
        }

    def check_same_split(self, facts: Iterable[Mapping[str, Any]], what: str) -> None:
        """Refuse a model or pairs of another split: what they were made from may be held out here.

        Args:
            facts: of models or pairs, with ``category`` and ``split_digest``; older ones have no digest and pass.
            what: names them in the message.

        Raises:
            ValueError: naming both splits.
        """
        digests: dict[str, str] = {}
        for row in facts:
            made, category = row.get("split_digest"), row["category"]
            if made is None:
                continue
            if category not in digests:
                digests[category] = self.category(category).digest
            if made != digests[category]:
                raise ValueError(
                    f"{what} of {category!r} was made under the split {made}, but {SPLIT} is {digests[category]}: "
                    "images it was made from may be held out now; use the run's own split.json, or train a new run"
                )


def run_folder(config: Config) -> RunFolder:
    """The run's folder."""
    return RunFolder.of(config.run.storage, config.run.name)


def scan(config: Config, emit: Callable[..., None]) -> list[Sample]:
    """The dataset's images of the categories asked for; ``emit`` takes events."""
    root = local_root(config.data.root)
    loader = configured(config.data, lambda message: emit("warning", message=message))
    samples = loader.scan(root, config.data.categories)
    emit("scanned", images=len(samples), dataset=loader.name, licence=loader.licence, root=str(root))
    return samples


def about_dataset(config: Config) -> dict[str, Any]:
    """What is kept of a dataset with the split: its name, licence and source."""
    loader = configured(config.data)
    facts = {"dataset": loader.name, "licence": loader.licence, "source": loader.source}
    return {**facts, "non_commercial": loader.non_commercial}


def stored_split(folder: RunFolder, root: str, config: Config | None = None) -> Split:
    """The run's split, checked against the files as they are now, and against what was asked.

    Args:
        folder: the run.
        root: where the images lie.
        config: what the verb was asked; None compares the files alone.

    Raises:
        ValueError: the run has none yet, images changed since, or another split was asked for.
    """
    if not folder.exists("split.json"):
        raise ValueError(f"{folder.uri} has no split yet; train first: dhdiff-ray submit train --run NAME ...")
    split = Split.from_json(folder.read_json("split.json"))
    if config is not None:
        split.check_settings(config.data)
    split.check(root)
    return split


def published_facts(split: Split, images: int) -> dict[str, Any]:
    """What is written beside a model of one category's split that was trained on so many images."""
    return {
        "defects": sorted({s.defect for s in split.train if not s.is_good}),
        "training_images": images,
        "split_digest": split.digest,
        "images_licence": split.about.get("licence", "unknown"),
    }


def check_same_split(facts: Iterable[Mapping[str, Any]], split: Split, what: str) -> None:
    """Refuse a model or pairs of another split: what they were made from may be held out here.

    Args:
        facts: of models or pairs, with ``category`` and ``split_digest``; older ones have no digest and pass.
        split: the run's.
        what: names them in the message.

    Raises:
        ValueError: naming both splits.
    """
    digests: dict[str, str] = {}
    for row in facts:
        made, category = row.get("split_digest"), row["category"]
        if made is None:
            continue
        if category not in digests:
            digests[category] = split.category(category).digest
        if made != digests[category]:
            raise ValueError(
                f"{what} of {category!r} was made under the split {made}, but split.json is {digests[category]}: "
                "images it was made from may be held out now; use the run's own split.json, or train a new run"
            )


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
