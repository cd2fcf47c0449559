"""A run: its configuration, and its folder, split and categories, which are read when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError, nearest
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.registry import configured
from dhdiff_ray.data.split import Split, hashes_of, split_as
from dhdiff_ray.records import Sample
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.foundation import Foundation, foundation_of

Parsed = TypeVar("Parsed")
CONFIG = "config.json"
SPLIT = "split.json"
FOUNDATION = "foundation.json"


class Run:
    """One run. Other processes are sent its configuration and folder, and read the rest themselves.

    Args:
        config: of the command.
        folder: where the run lies, if not where the configuration says.
    """

    def __init__(self, config: Config, folder: RunFolder | None = None) -> None:
        self.config = config
        if folder is not None:
            self.folder = folder

    def __reduce__(self) -> tuple[type[Run], tuple[Config, RunFolder]]:
        return Run, (self.config, RunFolder(self.folder.uri))

    @classmethod
    def stored(cls, folder: RunFolder) -> Run:
        """The run that lies in a folder, with the configuration it was begun with.

        Raises:
            ValueError: the folder is not a run.
        """
        if not folder.exists(CONFIG):
            raise ValueError(f"{folder.uri} is not a run: it has no {CONFIG}; train first: dhdiff-ray submit train ...")
        config = _parsed(folder, CONFIG, Config.model_validate)
        lies = config.run.model_copy(update={"storage": folder.storage})  # it may have been moved since
        return cls(config.model_copy(update={"run": lies}), folder)

    @cached_property
    def folder(self) -> RunFolder:
        """Where everything of the run lies."""
        return RunFolder.of(self.config.run.storage, self.config.run.name)

    @cached_property
    def split(self) -> Split:
        """Which real images are trained on and which are tested on, as ``split.json`` says.

        Raises:
            ValueError: the run has none yet, or it is of a foundation.
        """
        if not self.folder.exists(SPLIT):
            raise ValueError(
                f"{self.folder.uri} has no split yet ({SPLIT}); train first, or go on where the file was lost: "
                "dhdiff-ray submit train --run NAME ... --resume"
            )
        if self.config.sources:
            raise ValueError(
                f"{self.folder.uri} holds a foundation, which has no pairs, scores or detectors of its own: adapt it "
                f"to a product in another run, with --set model.backbone={self.config.run.name}/foundation"
            )
        return _parsed(self.folder, SPLIT, Split.from_json)

    def refuse_existing(self) -> None:
        """Refuse to begin a run that already exists.

        Raises:
            ValueError: it says how to go on with it.
        """
        if self.folder.exists(CONFIG):
            raise ValueError(
                f"the run {self.folder.uri} exists; add --resume to go on with it, or choose another --run"
            )

    def begin(self, samples: Sequence[Sample]) -> None:
        """Write down the split of a dataset's images with its terms, unless there is one, and the configuration."""
        if not self.folder.exists(SPLIT):
            loader = configured(self.config.data)
            about: dict[str, Any] = {"dataset": loader.name, "licence": loader.licence, "source": loader.source}
            about["non_commercial"] = loader.non_commercial
            hashes = hashes_of(samples, local_root(self.config.data.root))
            split = split_as(self.config.data, self.config.run.seed, samples, about, hashes)
            self.folder.write_json(SPLIT, split.to_json())
        if self.foundation is not None and not self.folder.exists(FOUNDATION):
            self.folder.write_json(FOUNDATION, self.foundation.about)
        self.write_config()

    @cached_property
    def foundation(self) -> Foundation | None:
        """The foundation that the run adapts; None from scratch or on a Stable Diffusion.

        Raises:
            ValueError: it is not there, is damaged, or is not the one that the run was begun with.
        """
        found = foundation_of(self.config)
        if found is not None and self.folder.exists(FOUNDATION):
            then = self.folder.read_json(FOUNDATION)
            if then["weights_sha256"] != found.about["weights_sha256"]:
                raise ValueError(
                    f"this run was begun from {then['name']} with weights {then['weights_sha256'][:12]}; those of "
                    f"{found.name} are {found.about['weights_sha256'][:12]} now: put the old ones back, or begin a new "
                    "--run"
                )
        return found

    def write_config(self) -> None:
        """Write down the configuration."""
        self.folder.write_json(CONFIG, self.config.model_dump(mode="json"))

    def check_split(self, category: str = "") -> Split:
        """The split, or one category's part, compared with what was asked and with the files as they are now.

        Raises:
            ValueError: images changed since, or another split was asked for.
        """
        self.split.check_settings(self.config.data)
        part = self.category(category) if category else self.split
        part.check(self.config.data.root)
        return part

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
        names = self.split.categories
        for name in self.config.data.categories:
            if name not in names:
                raise ConfigError(f"no category {name!r} in this run{nearest(name, names)}; it has: {', '.join(names)}")
        return sorted(self.config.data.categories) or names

    def scan(self, emit: Callable[..., None]) -> list[Sample]:
        """The dataset's images of the categories asked for; ``emit`` takes events."""
        root = local_root(self.config.data.root)
        loader = configured(self.config.data, lambda message: emit("warning", message=message))
        samples = loader.scan(root, self.config.data.categories)
        emit("scanned", images=len(samples), dataset=loader.name, licence=loader.licence, root=str(root))
        return samples

    def training_facts(self, category: str, images: int) -> dict[str, Any]:
        """What ``dhdiff.json`` says beside a category's model trained on this many images."""
        split = self.category(category)
        return {
            "defects": sorted({s.defect for s in split.train if not s.is_good}),
            "training_images": images,
            "split_digest": split.digest,
            "images_licence": split.about.get("licence", "unknown"),
            **({"foundation": self.foundation.about} if self.foundation else {}),
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


def _parsed(folder: RunFolder, name: str, parse: Callable[[Any], Parsed]) -> Parsed:
    """Content of a file of the run.

    Raises:
        DamagedError: it is not what it should be; the message names it.
    """
    content = folder.read_json(name)
    try:
        return parse(content)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError.of(folder.uri, name, " ".join(f"{type(error).__name__}: {error}".split())) from None
