"""What a foundation is trained on: the splits of several datasets, which lie together in the run's ``split.json``.

Not in the paper. Decided: every source is split as a run of its own would be, by the run's seed, and only training
sides are trained on; a sample's file is named below its own source, so that roots cannot collide; a category belongs to
its source, so that two may have one of the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhdiff_ray.config import FOUNDATION_NAME, Config, DataConfig
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.registry import configured
from dhdiff_ray.data.split import Split, split_as
from dhdiff_ray.records import Sample
from dhdiff_ray.run.run import FOUNDATION, SPLIT, Run

FREE = ("cc0", "public domain", "unlicense")
"""Licences without conditions."""


@dataclass(frozen=True)
class Part:
    """One source of a run: its name there, how often it is drawn from, its split."""

    name: str
    weight: float
    split: Split

    @property
    def categories(self) -> list[str]:
        """Sorted names of the categories that are trained on."""
        return sorted({sample.category for sample in self.split.train})


def named_sources(config: Config) -> dict[str, DataConfig]:
    """Each source as a dataset of its own, by its name in the run: the dataset's, and a number where there are several.

    Raises:
        ValueError: one has no folder.
    """
    named: dict[str, DataConfig] = {}
    for source in config.sources:
        stem = Path(source.dataset).stem
        name = next(n for at in range(len(named) + 1) if (n := f"{stem}-{at + 1}" if at else stem) not in named)
        root = source.root or config.data.root
        if not root:
            raise ValueError(f"where is the source {name}? give its root in the recipe, or pass --root FOLDER")
        update = {"dataset": source.dataset, "root": root, "categories": source.categories}
        named[name] = config.data.model_copy(update=update)
    return named


def scan_sources(config: Config, tell: Callable[[str], None] | None = None) -> dict[str, list[Sample]]:
    """The images of every source; ``tell`` takes remarks.

    Raises:
        ValueError: one cannot be read; the line names it.
    """
    found: dict[str, list[Sample]] = {}
    for name, data in named_sources(config).items():
        try:
            found[name] = configured(data, tell).scan(local_root(data.root), data.categories)
        except (ValueError, OSError) as error:
            raise ValueError(f"the source {name} ({data.root}) cannot be read: {error}") from None
    return found


def lay_out_sources(run: Run, emit: Callable[..., None]) -> list[str]:
    """Write the split of every source, or check those that are there, and the configuration.

    Returns:
        What there is to train: the one model.

    Raises:
        ValueError: a source cannot be read, or is not as this run was begun on it.
    """
    config, named = run.config, named_sources(run.config)
    found = scan_sources(config, lambda message: emit("warning", message=message))
    for name, samples in found.items():
        loader = configured(named[name])
        emit("scanned", images=len(samples), dataset=name, licence=loader.licence, root=named[name].root)
    if run.folder.exists(SPLIT):
        _check(run, named)
    else:
        rows = []
        for name, data in named.items():
            loader = configured(data)
            about = {"dataset": loader.name, "licence": loader.licence, "source": loader.source}
            about |= {"non_commercial": loader.non_commercial}
            try:
                split = split_as(data, config.run.seed, found[name], about)
            except ValueError as error:
                raise ValueError(f"the source {name}: {error}") from None
            rows.append({"name": name, "asked": list(data.categories), **split.to_json()})
        run.folder.write_json(SPLIT, {"sources": rows})
    if run.foundation is not None and not run.folder.exists(FOUNDATION):
        run.folder.write_json(FOUNDATION, run.foundation.about)
    run.write_config()
    return [FOUNDATION_NAME]


def parts_of(run: Run) -> list[Part]:
    """The sources of a run that is laid out, in the recipe's order.

    Raises:
        ValueError: the run does not train a foundation.
    """
    rows = run.folder.read_json(SPLIT).get("sources", []) if run.folder.exists(SPLIT) else []
    if not rows:
        raise ValueError(f"{run.folder.uri} holds no foundation; train one: dhdiff-ray submit train RECIPE ...")
    named = dict(zip((row["name"] for row in rows), run.config.sources, strict=False))
    return [Part(row["name"], named[row["name"]].weight, Split.from_json(row)) for row in rows]


def digest_of(parts: Sequence[Part]) -> str:
    """Hash of which image of which source lies on which side."""
    words = "\n".join(f"{part.name} {part.split.digest}" for part in parts)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def foundation_facts(run: Run, images: int) -> dict[str, Any]:
    """What is recorded beside a foundation trained on this many images."""
    parts = parts_of(run)
    about = [part.split.about for part in parts]
    strictest = max(about, key=lambda one: (bool(one.get("non_commercial")), not _is_free(one)))
    return {
        "defects": sorted({s.defect for part in parts for s in part.split.train if not s.is_good}),
        "training_images": images,
        "split_digest": digest_of(parts),
        "images_licence": strictest.get("licence", "unknown"),
        "sources": [
            {
                "name": part.name,
                "dataset": part.split.about.get("dataset", part.name),
                "licence": part.split.about.get("licence", "unknown"),
                "weight": part.weight,
                "categories": part.categories,
                "training_images": len(part.split.train),
                "split_digest": part.split.digest,
            }
            for part in parts
        ],
        **({"begun_from": run.foundation.about} if run.foundation else {}),
    }


def _is_free(about: Any) -> bool:
    return any(word in str(about.get("licence", "")).lower() for word in FREE)


def _check(run: Run, named: dict[str, DataConfig]) -> None:
    """Compare the recipe, and the files as they are now, with the stored split.

    Raises:
        ValueError: they differ.
    """
    rows = run.folder.read_json(SPLIT).get("sources", [])
    made = {row["name"]: row["asked"] for row in rows}
    asked = {name: list(data.categories) for name, data in named.items()}
    if made != asked or list(made) != list(asked):
        told = ", ".join(made) or "none"
        raise ValueError(
            f"this run was begun on other sources or categories (its sources: {told}); ask for the same, or train a "
            "new run"
        )
    for row, (name, data) in zip(rows, named.items(), strict=True):
        split = Split.from_json(row)
        try:
            split.check_settings(data, run.config.run.seed)
            split.check(data.root)
        except ValueError as error:
            raise ValueError(f"the source {name}: {error}") from None
