"""Which real images train and which test: seeded, by physical part, written down with hashes (section IV-B).

The paper trains on half of each defect's anomalies and on the normal images. What we decided: images of one physical
part (``group``) and files of the same bytes stay together, so the share is met as nearly as that allows; normal images
keep the archive's own side, and where it gives none four fifths train; generator, scorer and detector read the one
split that the run holds. ``full`` is the paper's test set read literally: it holds the training half, and says so.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.records import GOOD, Sample, by_category

TRAIN, TEST = "train", "test"
NORMAL_FRACTION = 0.8
"""Share of the normal images that train where the data does not say."""
_KEPT = ("split", "train_fraction", "shots", "several_defects", "manifest")
"""What of the configuration a split is made from, beside the seed and the images."""
_Part = tuple[str, str]
"""A physical part: (category, group); an image without group is a part of its own."""


class SplitError(ValueError):
    """Images that cannot be split as asked, or that changed since; the message says which."""


@dataclass(frozen=True)
class Split:
    """Both sides, each sorted by key; ``hashes`` holds the SHA-256 of every file by its path below ``root``."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    seed: int
    fraction: float
    root: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    mode: str = "fraction"
    """``fraction``, ``half``, ``third``, ``full``, ``kshot`` or ``given``; see ``data.split``."""
    shots: int = 0
    """Training anomalies per defect of ``kshot``; else 0."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The dataset's name, licence, source, and the settings that the split was made from."""

    @property
    def test_holds_training_images(self) -> bool:
        """Whether scores on the test side are flattered by images that were trained on."""
        return bool({s.key for s in self.train} & {s.key for s in self.test})

    @property
    def digest(self) -> str:
        """Hash of which image, by name and content, lies on which side, and of the masks' content."""
        sides = [[(s.key, self.hashes.get(s.key, "")) for s in side] for side in (self.train, self.test)]
        return hashlib.sha256(json.dumps([sides, sorted(self.hashes.items())]).encode()).hexdigest()[:16]

    @property
    def categories(self) -> list[str]:
        """Sorted names of the categories."""
        return sorted(set().union(*self._sides))

    def category(self, name: str) -> Split:
        """The part of the split that belongs to one category.

        Raises:
            SplitError: the split has no such category.
        """
        if not any(name in side for side in self._sides):
            raise SplitError(f"the split has no category {name!r}; there are: {', '.join(self.categories)}")
        train, test = (side.get(name, ()) for side in self._sides)
        files = sorted({file for sample in (*train, *test) for file in _files(sample, self.root)})
        return replace(self, train=train, test=test, hashes={f: self.hashes[f] for f in files if f in self.hashes})

    @cached_property
    def _sides(self) -> tuple[Mapping[str, tuple[Sample, ...]], ...]:
        return by_category(self.train), by_category(self.test)  # once, however many categories are asked for

    def defects(self) -> list[tuple[str, str]]:
        """Sorted (category, defect) pairs, normal images left out."""
        return sorted({(s.category, s.defect) for s in (*self.train, *self.test) if not s.is_good})

    def to_json(self, hashes: bool = True) -> dict[str, Any]:
        """Plain JSON values; paths are relative to ``root``; with ``hashes`` every file is read once."""
        digests = dict(self.hashes) or (hashes_of((*self.train, *self.test), self.root) if hashes else {})
        return {
            "root": self.root,
            "seed": self.seed,
            "mode": self.mode,
            "fraction": self.fraction,
            "shots": self.shots,
            "test_holds_training_images": self.test_holds_training_images,
            "about": dict(self.about),
            TRAIN: [_row(sample, self.root, digests) for sample in self.train],
            TEST: [_row(sample, self.root, digests) for sample in self.test],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Split:
        """The split that ``to_json`` wrote."""
        about = values.get("about", {})
        root = str(local_root(about["uri"])) if "uri" in about else values["root"]
        hashes = {}
        for row in (*values[TRAIN], *values[TEST]):
            files = ((row.get("image", row["key"]), "sha256"), (row["mask"], "mask_sha256"))
            hashes.update({file: row[digest] for file, digest in files if digest in row})
            hashes.update(row.get("more_masks", {}))
        train, test = (tuple(_sample(row, root) for row in values[side]) for side in (TRAIN, TEST))
        mode, shots = values.get("mode", "fraction"), values.get("shots", 0)
        digests = {file: digest for file, digest in hashes.items() if digest}
        return cls(train, test, values["seed"], values["fraction"], root, digests, mode, shots, about)

    def check(self, root: str | Path) -> None:
        """Compare every file below ``root`` with the hash that was written down.

        Raises:
            SplitError: files are missing or changed; the first few are named.
        """
        now = hashes_of((*self.train, *self.test), self.root, local_root(root), missing_ok=True)
        missing = [file for file, digest in now.items() if not digest]
        changed = [file for file, digest in now.items() if digest and self.hashes.get(file, digest) != digest]
        if missing or changed:
            told = (("missing", missing), ("changed", changed))
            more = {word: f" and {len(files) - 3} more" * (len(files) > 3) for word, files in told}
            changes = "; ".join(f"{word} {', '.join(files[:3])}{more[word]}" for word, files in told if files)
            raise SplitError(f"the images in {root} are not those this run was split on: {changes}. Use a new run name")

    def check_settings(self, data: DataConfig, seed: int | None = None) -> None:
        """Compare what a verb was asked with what the split was made from; the seed where it trains.

        Raises:
            SplitError: they differ; what is scored would not be what was held out.
        """
        asked = {**_settings(data), "seed": self.seed if seed is None else seed}
        made = {**self.about.get("settings", {}), "seed": self.seed}
        if differing := [name for name in asked if name in made and asked[name] != made[name]]:
            name = differing[0]
            key = "run.seed" if name == "seed" else f"data.{name}"
            raise SplitError(
                f"this run's split was made with {key} = {made[name]!r}, not {asked[name]!r}; leave {key} as it is, or "
                "train a new run"
            )


def make_split(
    samples: Iterable[Sample],
    *,
    fraction: float,
    seed: int,
    root: str | Path,
    mode: str = "fraction",
    shots: int = 0,
    about: Mapping[str, Any] | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Split:
    """Cut each category's anomalies per defect; the same samples, settings and seed give the same split.

    A part with normal images follows them (to the training side if they lie on both). Normal images of a validation
    folder train: nothing is selected on them. Copies are of one part, also where the data puts them on two sides.

    Args:
        samples: of any number of categories.
        fraction: share of each defect's anomalies that trains, between 0 and 1; for ``fraction`` and ``full``.
        seed: draws which parts train.
        root: the dataset's folder, which keys are relative to.
        mode: ``fraction``; ``half`` and ``third`` train on n//2 and n//3, at least one; ``kshot`` on ``shots``;
            ``given`` on what the data says; ``full`` on ``fraction``, and tests on all.
        shots: for ``kshot``.
        about: the dataset's name, licence and source, kept with the split.
        hashes: of the files, from :func:`hashes_of`; without them copies are not known.

    Raises:
        SplitError: a category without anomalies or without normal training images, or a defect whose parts cannot
            give at least one image to each side.
    """
    ordered = sorted(samples, key=lambda sample: sample.key)
    if not 0 < fraction < 1:
        raise SplitError(f"data.train_fraction = {fraction} must lie between 0 and 1")
    root, hashes, as_given = str(Path(root).absolute()), dict(hashes or {}), {sample.key: sample for sample in ordered}
    ordered = _copies_together(ordered, root, hashes)
    sides: dict[_Part, str] = {}
    for sample in ordered:
        given = sample.subset and (sample.is_good or mode == "given")
        if given and (sample.subset != TEST or _part(sample) not in sides):
            sides[_part(sample)] = TEST if sample.subset == TEST else TRAIN
    for category in sorted({sample.category for sample in ordered}):
        of_category = [sample for sample in ordered if sample.category == category]
        loose = [sample for sample in of_category if sample.is_good and _part(sample) not in sides]
        if len({_part(s) for s in loose}) > 1:
            _assign(loose, sides, NORMAL_FRACTION * len(loose), random.Random(f"{seed}|{category}|{GOOD}"))
        sides.update({_part(sample): TRAIN for sample in loose if _part(sample) not in sides})  # a single one trains
        if not any(sample.is_good and sides[_part(sample)] == TRAIN for sample in of_category):
            raise SplitError(f"category {category!r} has no normal images to train on; expected some in train/good")
        defects = sorted({sample.defect for sample in of_category if not sample.is_good})
        if not defects:
            raise SplitError(f"category {category!r} has no anomalies; leave it out of --category")
        for defect in defects:
            anomalies = [sample for sample in of_category if sample.defect == defect]
            if mode == "given" and all(_part(sample) in sides for sample in anomalies):
                _check_given(anomalies, sides)
                continue
            wanted = _wanted(mode, len(anomalies), fraction, shots)
            _assign(anomalies, sides, wanted, random.Random(f"{seed}|{category}|{defect}"))
    train, everything = tuple(as_given[s.key] for s in ordered if sides[_part(s)] == TRAIN), mode == "full"
    test = tuple(as_given[s.key] for s in ordered if sides[_part(s)] == TEST or (everything and not s.is_good))
    return Split(train, test, seed, fraction, root, hashes, mode, shots if mode == "kshot" else 0, dict(about or {}))


def split_as(
    data: DataConfig,
    seed: int,
    samples: Iterable[Sample],
    about: Mapping[str, Any] | None = None,
    hashes: Mapping[str, str] | None = None,
) -> Split:
    """The split that a run's configuration asks for; ``about`` and ``hashes`` as for :func:`make_split`."""
    remote = {"uri": data.root} if "://" in data.root else {}
    return make_split(
        samples,
        fraction=data.train_fraction,
        seed=seed,
        root=local_root(data.root),
        mode=data.split,
        shots=data.shots,
        about={**(about or {}), **remote, "settings": _settings(data)},
        hashes=hashes,
    )


def hashes_of(
    samples: Iterable[Sample], base: str | Path, root: Path | None = None, missing_ok: bool = False
) -> dict[str, str]:
    """SHA-256 of every file by its path below ``base``, as it lies there, or below ``root``; missing ones: empty.

    Raises:
        SplitError: a file is not there any more.
    """
    files = sorted({file for sample in samples for file in _files(sample, str(Path(base).absolute()))})
    root = root or Path(base)

    def digest(file: str) -> str:
        if (root / file).exists():
            return hashlib.sha256((root / file).read_bytes()).hexdigest()
        if missing_ok:
            return ""
        raise SplitError(f"{root / file} is not there any more; scan the dataset again")

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(files, pool.map(digest, files), strict=True))


def _settings(data: DataConfig) -> dict[str, Any]:
    """What matters of the settings: those that the mode does not look at are left out."""
    unread = {"train_fraction": data.split not in ("fraction", "full", "given"), "shots": data.split != "kshot"}
    return {name: getattr(data, name) for name in _KEPT if not unread.get(name)}


def _wanted(mode: str, count: int, fraction: float, shots: int) -> float:
    """How many of ``count`` anomalies of one defect shall train."""
    if mode in ("half", "third"):
        return max(1, count // (2 if mode == "half" else 3))
    return min(shots, count - 1) if mode == "kshot" else fraction * count


def _check_given(anomalies: Sequence[Sample], sides: Mapping[_Part, str]) -> None:
    if len({sides[_part(sample)] for sample in anomalies}) < 2:
        first, side = anomalies[0], sides[_part(anomalies[0])]
        raise SplitError(
            f"{first.category}/{first.defect}: the data puts all {len(anomalies)} images on the side {side!r}; name "
            "another official split with --set data.manifest=..., or cut it by --set data.split=fraction"
        )


def _assign(samples: Sequence[Sample], sides: dict[_Part, str], wanted: float, rng: random.Random) -> None:
    """Give a side to every part, so that the number of training images is as near to ``wanted`` as it can be."""
    sizes: dict[_Part, int] = {}
    for sample in samples:
        sizes[_part(sample)] = sizes.get(_part(sample), 0) + 1
    free = [part for part in sizes if part not in sides]
    rng.shuffle(free)
    # Which numbers of training images are reachable, and the first way found to each: a subset-sum table.
    reachable: dict[int, tuple[_Part, ...]] = {sum(n for part, n in sizes.items() if sides.get(part) == TRAIN): ()}
    for part in free:
        for count, chosen in list(reachable.items()):
            reachable.setdefault(count + sizes[part], (*chosen, part))
    usable = [count for count in reachable if 0 < count < len(samples)]
    if not usable:
        first = samples[0]
        raise SplitError(
            f"{first.category}/{first.defect}: {len(samples)} images of {len(sizes)} physical parts cannot be put on "
            "both sides of the split; each defect needs images of two parts or more, so add some, or take the defect "
            "out of the dataset's folder"
        )
    best = min(usable, key=lambda count: (abs(count - wanted), count))
    sides.update({part: TRAIN if part in reachable[best] else TEST for part in free})


def _part(sample: Sample) -> _Part:
    return sample.category, f"group {sample.group}" if sample.group is not None else f"file {sample.image}"


def _copies_together(samples: Sequence[Sample], root: str, hashes: Mapping[str, str]) -> list[Sample]:
    """The same samples, those of parts that share an image's bytes with one group."""
    joined: dict[_Part, _Part] = {}  # part -> the part that it belongs to
    seen: dict[tuple[str, str], _Part] = {}
    for sample in samples:
        if digest := hashes.get(_files(sample, root)[0]) if hashes else "":
            parts = _part(sample), seen.setdefault((sample.category, digest), _part(sample))
            old, new = (joined.get(part, part) for part in parts)
            if old != new:
                joined |= {part: new for part, at in joined.items() if at == old} | {old: new, new: new}
    return [replace(s, group=joined[_part(s)][1]) if _part(s) in joined else s for s in samples]


def _files(sample: Sample, root: str) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in (sample.image, *sample.masks)]


def _row(sample: Sample, root: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """One line of ``split.json``; what most samples have not is left out."""
    row = {name: getattr(sample, name) for name in ("key", "category", "defect", "subset")}
    image, *masks = _files(sample, root)
    row |= {"mask": masks[0] if masks else None, "group": sample.group}
    if image != sample.key:
        row["image"] = image
    if sample.values:
        row["values"] = list(sample.values)
    if image in hashes:
        row["sha256"] = hashes[image]
    if masks and masks[0] in hashes:
        row["mask_sha256"] = hashes[masks[0]]
    if masks[1:]:
        row["more_masks"] = {mask: hashes.get(mask, "") for mask in masks[1:]}
    return row


def _sample(row: Mapping[str, Any], root: str) -> Sample:
    mask = f"{root}/{row['mask']}" if row["mask"] else None
    image = f"{root}/{row.get('image', row['key'])}"
    more = tuple(f"{root}/{mask}" for mask in row.get("more_masks", ()))
    values = tuple(row.get("values", ()))
    return Sample(row["key"], row["category"], row["defect"], row["subset"], image, mask, row["group"], more, values)
