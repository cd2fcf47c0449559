"""What lies in a dataset's folder: its images, the masks that belong to them, its tables; opens no image.

Not in the paper. What we decided: a mask belongs to an image by its stem, never by its place in a sorted list; suffixes
are compared without case; a path that leaves the dataset's folder, by ``..`` or by a link, is refused; so are names
that cannot be file names on every system, since categories and defects become folders of the pairs.
"""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from dhdiff_ray.data.registry import DatasetError
from dhdiff_ray.records import GOOD

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
NORMAL_NAMES = frozenset({"", GOOD, "ok", "normal", "none"})
"""What tables and folders call a normal image; compared without case."""
SUBSETS = {"": "", "train": "train", "test": "test", **dict.fromkeys(("val", "valid", "validation"), "validation")}
COMBINED = "combined"
"""The defect of an image that shows several, as MVTec AD calls it."""


def images_in(folder: Path, root: Path | None = None) -> list[Path]:
    """Image files directly in ``folder``, sorted by name; anything else is ignored.

    Raises:
        DatasetError: two names that differ in case alone, or a link that leads out of ``root``.
    """
    # A link to nowhere stays in the list, so that reading it names it.
    return _listed(folder, root, lambda e: Path(e.name).suffix.lower() in SUFFIXES and not e.is_dir())


def folders_in(folder: Path, root: Path | None = None) -> list[Path]:
    """Folders directly in ``folder``, sorted; each name is checked to be a good name of a defect or category.

    Raises:
        DatasetError: as above, or a name with control characters.
    """
    paths = _listed(folder, root, os.DirEntry.is_dir)
    for path in paths:
        check_name(path.name, str(path.parent))
    return paths


def masks_by_stem(folder: Path, images: Sequence[Path], root: Path | None = None) -> dict[str, Path]:
    """Stem of the image -> mask file; a mask is named like its image, with or without ``_mask``.

    Raises:
        DatasetError: no such folder, two masks of one image, or two images that would share a mask.
    """
    if images and not folder.is_dir():
        raise DatasetError(
            f"{images[0].parent} has {len(images)} anomalies but there is no folder {folder}; pairs are learnt from "
            "masks, so put one mask per image there, named like the image with _mask before the suffix"
        )
    by_stem: dict[str, Path] = {}
    for image in images:
        if image.stem in by_stem:
            raise DatasetError(f"{by_stem[image.stem]} and {image} would share one mask; rename one of them")
        by_stem[image.stem] = image
    masks: dict[str, Path] = {}
    for path in images_in(folder, root):
        stem = path.stem if path.stem in by_stem else path.stem.removesuffix("_mask")
        if stem in masks:
            raise DatasetError(f"{masks[stem]} and {path} are both masks of {stem}; keep one")
        masks[stem] = path
    return masks


def inside(root: Path, name: str, named_by: str) -> Path:
    """The path of ``name`` below ``root``, absolute or relative as a table gives it.

    Raises:
        DatasetError: it is empty, or lies outside ``root`` by ``..``, as an absolute path, or through a link.
    """
    if not name or "\0" in name:
        raise DatasetError(f"{named_by}: {name!r} is no path; give one relative to {root}")
    path = Path(os.path.normpath(root / name))
    real = Path(os.path.realpath(path))
    if not path.is_relative_to(root) or not real.is_relative_to(os.path.realpath(root)):
        raise DatasetError(
            f"{named_by}: {name!r} lies outside {root}; copy it below, or give a higher folder as --root"
        )
    return path


def check_name(name: str, where: str) -> str:
    """A category's or defect's name, which becomes a folder of the pairs and words of the prompt.

    Raises:
        DatasetError: it is empty, hidden, has a slash or control characters such as a line end.
    """
    bad = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    if bad or "/" in name or "\\" in name or name.startswith(".") or not name.strip():
        raise DatasetError(
            f"{where}: {name!r} cannot name a category or defect; rename it with letters, digits, spaces, - and _"
        )
    return name


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file (comma, semicolon or tab; byte-order mark or not; any line ends) or of a JSONL file.

    Raises:
        DatasetError: it is not there, not UTF-8, has no header, or a line that does not fit; the line is named.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path} is not there") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not UTF-8; save it again as UTF-8 text") from None
    if path.suffix.lower() == ".jsonl":
        return [_json_row(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    columns = [c.strip() for c in reader.fieldnames or []]
    if not columns or len(set(columns)) != len(columns):
        raise DatasetError(f"{path} has no header line with different column names; the first line is {head!r}")
    reader.fieldnames = columns
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DatasetError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} fields ({', '.join(columns)})"
                )
            rows.append(row)
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def defect_of(name: str, where: str) -> str:
    """A defect as a table or folder names it; every word for normal becomes ``good``."""
    return GOOD if name.strip().lower() in NORMAL_NAMES else check_name(name.strip(), where)


def subset_of(name: str, where: str) -> str:
    """``train``, ``test``, ``validation``, or empty where the data does not say.

    Raises:
        DatasetError: any other word.
    """
    if name.strip().lower() not in SUBSETS:
        raise DatasetError(f"{where}: unknown split {name!r}; expected train, test or validation, or nothing")
    return SUBSETS[name.strip().lower()]


def _listed(folder: Path, root: Path | None, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    """What is wanted of a folder, sorted; nothing where it is not there. Twins and links that lead out are refused."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as listing:
        entries = [entry for entry in listing if not entry.name.startswith(".") and wanted(entry)]
    seen: dict[str, Path] = {}
    for path in (folder / entry.name for entry in entries):
        other = seen.setdefault(unicodedata.normalize("NFC", path.name).casefold(), path)
        if other is not path:
            one, two = sorted((other, path))
            raise DatasetError(f"{one} and {two.name!r} differ in case alone, which not every disk keeps; rename one")
    for entry in entries:
        if root is not None and entry.is_symlink():
            inside(root, entry.path, "link")
    return sorted(seen.values())


def _json_row(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {number}: {error}") from None
    if not isinstance(row, dict):
        raise DatasetError(f'{path}, line {number}: expected an object such as {{"image": "photos/1.jpg"}}')
    return {str(k): "" if v is None else str(v) for k, v in row.items()}
