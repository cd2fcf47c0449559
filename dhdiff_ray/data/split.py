"""Which real images train and which test: seeded, by physical part, written down with hashes (section IV-B).

The paper trains on half of each defect's anomalies and on the normal images. What we decided: images of one physical
part (``group``) stay together, so the share is met as nearly as the groups allow; normal images keep the archive's
own side; generator, scorer and detector read the one split that the run holds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dhdiff_ray.records import Sample

TRAIN, TEST = "train", "test"
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

    @property
    def categories(self) -> list[str]:
        """Sorted names of the categories."""
        return sorted({sample.category for sample in (*self.train, *self.test)})

    def category(self, name: str) -> Split:
        """The part of the split that belongs to one category.

        Raises:
            SplitError: the split has no such category.
        """
        if name not in self.categories:
            raise SplitError(f"the split has no category {name!r}; there are: {', '.join(self.categories)}")
        train = tuple(sample for sample in self.train if sample.category == name)
        test = tuple(sample for sample in self.test if sample.category == name)
        files = {file for sample in (*train, *test) for file in _files(sample, self.root)}
        return replace(self, train=train, test=test, hashes={f: h for f, h in self.hashes.items() if f in files})

    def defects(self) -> list[tuple[str, str]]:
        """Sorted (category, defect) pairs, normal images left out."""
        return sorted({(s.category, s.defect) for s in (*self.train, *self.test) if not s.is_good})

    def to_json(self, hashes: bool = True) -> dict[str, Any]:
        """Plain JSON values; paths are relative to ``root``; with ``hashes`` every file is read once."""
        known = dict(self.hashes)
        if hashes and not known:
            known = _hash_all(self, Path(self.root))
        return {
            "root": self.root,
            "seed": self.seed,
            "fraction": self.fraction,
            TRAIN: [_row(sample, self.root, known) for sample in self.train],
            TEST: [_row(sample, self.root, known) for sample in self.test],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Split:
        """The split that ``to_json`` wrote."""
        root = values["root"]
        hashes = {
            row[file]: row[digest]
            for row in (*values[TRAIN], *values[TEST])
            for file, digest in (("key", "sha256"), ("mask", "mask_sha256"))
            if digest in row
        }
        train, test = (tuple(_sample(row, root) for row in values[side]) for side in (TRAIN, TEST))
        return cls(train, test, values["seed"], values["fraction"], root, hashes)

    def check(self, root: str | Path) -> None:
        """Compare every file below ``root`` with the hash that was written down.

        Raises:
            SplitError: files are missing or changed; the first few are named.
        """
        now = _hash_all(self, Path(root), missing_ok=True)
        missing = [file for file, digest in now.items() if not digest]
        changed = [file for file, digest in now.items() if digest and self.hashes.get(file, digest) != digest]
        if missing or changed:
            parts = [_list("missing", missing), _list("changed", changed)]
            told = "; ".join(part for part in parts if part)
            raise SplitError(f"the images in {root} are not those this run was split on: {told}. Use a new run name")


def make_split(samples: Iterable[Sample], *, fraction: float, seed: int, root: str | Path) -> Split:
    """Cut each category's anomalies per defect; the same samples, fraction and seed give the same split.

    A part with normal images follows them (to the training side if they lie on both). Normal images of a validation
    folder train: nothing is selected on them.

    Args:
        samples: of any number of categories.
        fraction: share of each defect's anomalies that trains, between 0 and 1.
        seed: draws which parts train.
        root: the dataset's folder, which keys are relative to.

    Raises:
        SplitError: a category without anomalies or without normal training images, or a defect whose parts cannot
            give at least one image to each side.
    """
    ordered = sorted(samples, key=lambda sample: sample.key)
    if not 0 < fraction < 1:
        raise SplitError(f"data.train_fraction = {fraction} must lie between 0 and 1")
    sides: dict[_Part, str] = {}
    for sample in ordered:
        if sample.is_good and (sample.subset != TEST or _part(sample) not in sides):
            sides[_part(sample)] = TEST if sample.subset == TEST else TRAIN
    for category in sorted({sample.category for sample in ordered}):
        own = [sample for sample in ordered if sample.category == category]
        if not any(sample.is_good and sides[_part(sample)] == TRAIN for sample in own):
            raise SplitError(f"category {category!r} has no normal images to train on; expected some in train/good")
        defects = sorted({sample.defect for sample in own if not sample.is_good})
        if not defects:
            raise SplitError(f"category {category!r} has no anomalies; leave it out of --category")
        for defect in defects:
            anomalies = [sample for sample in own if sample.defect == defect]
            _assign(anomalies, sides, fraction, random.Random(f"{seed}|{category}|{defect}"))
    train, test = (tuple(s for s in ordered if sides[_part(s)] == side) for side in (TRAIN, TEST))
    return Split(train, test, seed, fraction, str(Path(root).absolute()))


def _assign(anomalies: Sequence[Sample], sides: dict[_Part, str], fraction: float, rng: random.Random) -> None:
    """Give a side to every part of one defect, so that the training share is as near to ``fraction`` as it can be."""
    sizes: dict[_Part, int] = {}
    for sample in anomalies:
        sizes[_part(sample)] = sizes.get(_part(sample), 0) + 1
    free = [part for part in sizes if part not in sides]
    rng.shuffle(free)
    # Which numbers of training images are reachable, and the first way found to each: a subset-sum table.
    reachable: dict[int, tuple[_Part, ...]] = {sum(n for part, n in sizes.items() if sides.get(part) == TRAIN): ()}
    for part in free:
        for count, chosen in list(reachable.items()):
            reachable.setdefault(count + sizes[part], (*chosen, part))
    usable = [count for count in reachable if 0 < count < len(anomalies)]
    if not usable:
        first = anomalies[0]
        raise SplitError(
            f"{first.category}/{first.defect}: {len(anomalies)} images of {len(sizes)} physical parts cannot be put on "
            "both sides of the split; each defect needs images of two parts or more"
        )
    best = min(usable, key=lambda count: (abs(count - fraction * len(anomalies)), count))
    sides.update({part: TRAIN if part in reachable[best] else TEST for part in free})


def _part(sample: Sample) -> _Part:
    return sample.category, f"group {sample.group}" if sample.group is not None else f"file {sample.key}"


def _files(sample: Sample, root: str) -> list[str]:
    mask = [Path(sample.mask).relative_to(root).as_posix()] if sample.mask else []
    return [sample.key, *mask]


def _row(sample: Sample, root: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    row = asdict(sample)
    del row["image"]
    key, *mask = _files(sample, root)
    row["mask"] = mask[0] if mask else None
    if key in hashes:
        row["sha256"] = hashes[key]
    if mask and mask[0] in hashes:
        row["mask_sha256"] = hashes[mask[0]]
    return row


def _sample(row: Mapping[str, Any], root: str) -> Sample:
    mask = f"{root}/{row['mask']}" if row["mask"] else None
    image = f"{root}/{row['key']}"
    return Sample(row["key"], row["category"], row["defect"], row["subset"], image, mask, row["group"])


def _hash_all(split: Split, root: Path, missing_ok: bool = False) -> dict[str, str]:
    files = sorted({file for sample in (*split.train, *split.test) for file in _files(sample, split.root)})

    def digest(file: str) -> str:
        try:
            return hashlib.sha256((root / file).read_bytes()).hexdigest()
        except FileNotFoundError:
            if missing_ok:
                return ""
            raise SplitError(f"{root / file} is not there any more; scan the dataset again") from None

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(files, pool.map(digest, files), strict=True))


def _list(word: str, files: Sequence[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{word} {', '.join(files[:3])}{more}" if files else ""
