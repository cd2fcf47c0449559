"""Any folder: a table that lists the images, or two patterns that say where images and masks lie.

Not in the paper. The table is ``manifest.csv`` (or ``.jsonl``) at the root with a column ``image`` and any of ``mask``,
``category``, ``defect``, ``split``, ``group``; paths are relative to the root. The patterns are ``data.images`` and
``data.masks``, with ``*`` and ``**`` as usual and the names ``{category} {defect} {split} {group} {stem}``.

What we decided: an image belongs to the mask whose pattern gives the same names; a defect that nobody names is
``defect`` where there is a mask; an empty defect, ``ok``, ``normal`` and ``good`` are normal images; a category that
nobody names is the folder's own name; where no side is given, the split draws it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dhdiff_ray.config.load import nearest
from dhdiff_ray.data.encode import save_jpeg, save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.layout import SUFFIXES, check_name, defect_of, inside, read_table, subset_of
from dhdiff_ray.data.registry import Dataset, DatasetError, choose_categories, dataset
from dhdiff_ray.records import GOOD, Sample

MANIFESTS = ("manifest.csv", "manifest.jsonl")
COLUMNS = ("image", "mask", "category", "defect", "split", "group")
PLACES = ("category", "defect", "split", "group", "stem")


@dataset("folder")
class Folder(Dataset):
    """A folder described by a manifest or by patterns."""

    licence = "your own"
    source = "a folder of yours"

    def categories(self, root: Path) -> list[str]:
        """What the table or the patterns name, sorted."""
        return sorted({sample.category for sample in self._all(root.absolute())})

    def scan(self, root: Path, categories: Sequence[str] = ()) -> list[Sample]:
        """All images that the table lists or the pattern matches."""
        samples = self._all(root.absolute())
        chosen = set(choose_categories(sorted({s.category for s in samples}), categories, root))
        return sorted((s for s in samples if s.category in chosen), key=lambda sample: sample.key)

    def _all(self, root: Path) -> list[Sample]:
        if not root.is_dir():
            raise DatasetError(f"no dataset folder {root}; give the folder that holds the images with --root")
        manifest = self._manifest(root)
        samples = list(self._listed(root, manifest) if manifest else self._matched(root))
        if not samples:
            what = manifest or f"the pattern {self.reading.images!r} below {root}"
            raise DatasetError(f"{what} gives no images; paths are relative to {root}")
        seen: dict[str, str] = {}
        for sample in samples:
            if sample.key.casefold() in seen:
                other = seen[sample.key.casefold()]
                raise DatasetError(f"{root / sample.key} is listed twice, also as {other!r}; keep one")
            seen[sample.key.casefold()] = sample.key
        return samples

    def _manifest(self, root: Path) -> Path | None:
        if self.reading.manifest:
            return inside(root, self.reading.manifest, "data.manifest")
        if self.reading.images:
            return None
        for name in MANIFESTS:
            if (root / name).is_file():
                return root / name
        raise DatasetError(
            f"{root} has no {MANIFESTS[0]}; write one with the columns {', '.join(COLUMNS)} (only image is needed), or "
            'say where images lie: --set data.images="{category}/{defect}/*.png" '
            '--set data.masks="{category}/masks/{defect}/{stem}.png"'
        )

    def _listed(self, root: Path, manifest: Path) -> Iterator[Sample]:
        for number, row in enumerate(read_table(manifest), 1 if manifest.suffix == ".jsonl" else 2):
            where = f"{manifest}, line {number}"
            for name in row:
                if name not in COLUMNS and (hint := nearest(name, list(COLUMNS))):
                    raise DatasetError(f"{manifest}: unknown column {name!r}{hint}")
            if "image" not in row:
                raise DatasetError(f"{manifest} has no column 'image'; it has: {', '.join(row)}")
            image = inside(root, row["image"], where)
            mask = inside(root, row["mask"], where) if row.get("mask") else None
            for path in (image, mask):
                if path is not None and not path.is_file():
                    role = f", the mask of {image}" if path is mask else ""
                    self.leave_out(f"{where}: {path} is not there{role}", path)
                    break
            else:
                yield from self._sample(root, image, mask, row, where)

    def _matched(self, root: Path) -> Iterator[Sample]:
        wanted, held = _compiled(self.reading.images), _compiled(self.reading.masks) if self.reading.masks else None
        places = [name for name in PLACES if held and name in held.groupindex]
        masks: dict[tuple[str, ...], Path] = {}
        images: list[tuple[Path, dict[str, str]]] = []
        for path in _files(root):
            key = path.relative_to(root).as_posix()
            if held and (match := held.fullmatch(key)):
                names = tuple(match[name] for name in places)
                if names in masks:
                    raise DatasetError(f"{masks[names]} and {path} are masks of the same image; keep one")
                masks[names] = path
            elif match := wanted.fullmatch(key):
                images.append((path, {"stem": path.stem, **match.groupdict()}))
        for image, named in images:
            missing = [name for name in places if name not in named]
            if missing:
                raise DatasetError(f"data.masks has {{{missing[0]}}}, which data.images does not; use the same names")
            mask = masks.get(tuple(named[name] for name in places))
            yield from self._sample(root, image, mask, named, str(image))

    def _sample(
        self, root: Path, image: Path, mask: Path | None, row: Mapping[str, str], where: str
    ) -> Iterator[Sample]:
        category = check_name((row.get("category") or root.name).strip(), where)
        named = row.get("defect")
        defect = defect_of(named, where) if named else ("defect" if mask else GOOD)
        if defect != GOOD and mask is None:
            self.leave_out(f"{where}: {image} shows {defect!r} but has no mask; name one", image)
            return
        if defect == GOOD and mask is not None:
            raise DatasetError(f"{where}: {image} is normal but has the mask {mask}; name its defect or leave it out")
        key = image.relative_to(root).as_posix()
        subset = subset_of(row.get("split") or "", where)
        yield Sample(key, category, defect, subset, str(image), mask and str(mask), row.get("group") or None)

    def example(self, root: Path, seed: int = 0) -> None:
        """A product's photographs with a manifest; some show the same part."""
        rng = np.random.default_rng(seed)
        rows = [",".join(COLUMNS)]
        for index in range(6):
            save_jpeg(root / "photos" / f"fine {index}.jpg", noise(rng))
            rows.append(f"photos/fine {index}.jpg,,knob,ok,{'train' if index < 4 else 'test'},")
        for index in range(6):
            image, mask = spoiled(rng)
            save_jpeg(root / "photos" / f"bad {index}.jpg", image)
            save_png(root / "drawn" / f"bad {index}.png", mask)
            defect = ("dent", "scratch")[index % 2]
            rows.append(f"photos/bad {index}.jpg,drawn/bad {index}.png,knob,{defect},,part {index // 2}")
        (root / MANIFESTS[0]).write_text("\n".join(rows) + "\n")


def _files(root: Path) -> Iterator[Path]:
    """All image files below ``root``, sorted; links that lead out are refused."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in (*folders, *names):
            path = os.path.join(folder, name)  # noqa: PTH118
            if os.path.islink(path):  # noqa: PTH114
                inside(root, path, "link")
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):  # noqa: PTH122
                yield Path(folder, name)


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern over paths relative to the root as a regular expression with a group per name."""
    made = ""
    used: set[str] = set()
    for part in re.split(r"(\{[^}]*\}|\*\*/?|\*|\?)", pattern):
        if part.startswith("{"):
            name = part[1:-1]
            if name not in PLACES:
                hint = nearest(name, list(PLACES)) or "."
                raise DatasetError(f"{pattern!r} has {part}{hint} Names are: {', '.join(PLACES)}")
            made += f"(?P={name})" if name in used else f"(?P<{name}>[^/]+)"
            used.add(name)
        else:
            made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(made)
