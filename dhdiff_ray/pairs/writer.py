"""Made pairs on disk: MVTec's tree, a ``metadata.jsonl`` per category, a card; the only file that writes pairs.

The paper's detectors are trained on such pairs (section IV-D). The tree is the one that anomalib's ``MVTecAD`` and
Hugging Face's ``load_dataset`` read. What we decided: the mask is written first and the image appears by rename, so an
image that is there is a whole pair; equal pairs are equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.images import UNREADABLE, read_image
from dhdiff_ray.pairs import archives
from dhdiff_ray.pairs.card import Counts, card_text, counted
from dhdiff_ray.records import GOOD, Pair, Request, Sample
from dhdiff_ray.run.damage import DamagedError, promise
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

PAIRS = "pairs"
METADATA = "metadata.jsonl"
TOLD_IN = {"mvtec": METADATA, "webdataset": archives.MANIFEST}
"""By ``synthesize.layout``, the file of a finished category that tells of its pairs."""
COUNTED = "counted"
"""What a finished category's file says of its rows, for the card."""
SETTINGS = "synthesis"
"""Folder of a run with what the pairs of each category are sampled with."""
CARD_FILES = ("config.json", "split.json", "scores.json", "detection.json")
"""What of a run the card tells."""


class PairsError(ValueError):
    """A tree of pairs with gaps, strangers or unreadable rows; the message says what to run."""


@dataclass(frozen=True)
class Encoded:
    """A pair as the bytes of its two files."""

    image: bytes
    mask: bytes

    @classmethod
    def of(cls, pair: Pair) -> Encoded:
        """A pair as PNG.

        Raises:
            ValueError: image is not uint8 (h, w, 3), mask not uint8 (h, w) of the same size with 0 and 255 only.
        """
        image, mask = pair.image, pair.mask
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a pair's image must be uint8 (h, w, 3), not {image.dtype} {image.shape}")
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2] or not np.isin(mask, (0, 255)).all():
            raise ValueError(
                f"a pair's mask must be uint8 {image.shape[:2]} of 0 and 255, not {mask.dtype} {mask.shape}"
            )
        return cls(png_bytes(image), png_bytes(mask))

    @property
    def promises(self) -> dict[str, list[int | str]]:
        """Size and hash of both files, for a marker."""
        return {"image": promise(self.image), "mask": promise(self.mask)}


class PairWriter:
    """Lays down the pairs of one run under ``pairs/``; workers may write side by side."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def has_pair(self, request: Request) -> bool:
        """Whether the pair is there as a whole."""
        return self.folder.exists(_name(request.category, image_file(request)))

    def write_pair(self, pair: Pair) -> None:
        """Write the mask, then the image; writing the same pair again changes nothing.

        Raises:
            ValueError: see :meth:`Encoded.of`.
        """
        self.write_encoded(pair.request, Encoded.of(pair))

    def write_encoded(self, request: Request, pair: Encoded) -> None:
        """The same for a pair that is encoded already."""
        self.folder.write_bytes(_name(request.category, mask_file(request)), pair.mask)
        self.folder.write_bytes(_name(request.category, image_file(request)), pair.image)

    def write_normals(
        self, category: str, train_goods: Sequence[Sample], test_goods: Sequence[Sample], resolution: int
    ) -> None:
        """Put real normal images beside the pairs, so that an anomaly detector can use the tree as it is; no others."""
        for subset, samples in (("train", train_goods), ("test", test_goods)):
            names = [_name(category, f"{subset}/{GOOD}/{index:06d}.png") for index in range(len(samples))]
            there = set(self.folder.files(_name(category, f"{subset}/{GOOD}")))
            for stranger in there.difference(names):
                self.folder.delete(stranger)
            for name, sample in zip(names, samples, strict=True):
                if name not in there:
                    self.folder.write_bytes(name, png_bytes(read_image(sample, resolution)))

    def finish(
        self,
        category: str,
        requests: Sequence[Request],
        extra: Mapping[str, Any],
        by_pair: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
        marked: bool = False,
    ) -> None:
        """Check that exactly the requested pairs are there; then write the category's metadata.

        Args:
            category: the category that is complete now.
            requests: all requests of the category, over all defects.
            extra: plain values (no lists or tables) that go into every row, such as the configuration's hash.
            by_pair: plain values of one pair, by defect and index.
            marked: leave a marker with the hashes of metadata and normal images, as runs have it.

        Raises:
            PairsError: pairs are missing, or files lie there that no request asks for. Readers match images and
                masks by sorted order, so either would shift every pair behind it.
        """
        ordered = sorted(requests, key=lambda request: (request.defect, request.index))
        expected = {file for request in ordered for file in (image_file(request), mask_file(request))}
        start = len(_name(category, "")) + 1
        files = {file[start:] for file in self.folder.files(_name(category, ""))}
        files = {f for f in files if f.endswith(".png") and f.split("/")[1:2] != [GOOD]}
        if missing := sorted(expected - files):
            message = f"{len(missing)} files are missing, the first is {missing[0]}"
            raise PairsError(f"pairs of {category!r} are not complete: {message}; submit synthesize again to go on")
        if strangers := sorted(files - expected):
            message = f"{len(strangers)} files were not asked for, the first is {strangers[0]}"
            raise PairsError(f"pairs of {category!r}: {message}; ask for as many pairs as before, or use a new run")
        rows = [{**pair_row(r), **(by_pair or {}).get((r.defect, r.index), {}), **extra} for r in ordered]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.folder.write_bytes(_name(category, METADATA), lines.encode())
        if marked:
            told: dict[str, Any] = {METADATA: promise(lines.encode()), COUNTED: counted(rows)}
            told |= settings_promise(self.folder, category)
            self.folder.write_json(finished_file(category), told | self._goods(category))

    def _goods(self, category: str) -> dict[str, Any]:
        """Size and hash of the normal images beside the pairs; on an object store of those alone that have changed."""
        start, name = len(_name(category, "")) + 1, finished_file(category)
        before = {} if self.folder.is_local else self.folder.facts(name)
        sizes = {file[start:]: size for file, size in self.folder.sizes(_name(category, "")).items()}
        goods = {file: size for file, size in sizes.items() if file.split("/")[1:2] == [GOOD]}
        known = {file: before[file] for file, size in goods.items() if before.get(file, [-1])[0] == size}
        return {f: known.get(f) or promise(self.folder.read_bytes(_name(category, f))) for f in goods}


def write_card(folder: RunFolder) -> None:
    """Write the card from what the run holds alone: once a job, from what was counted of each category's rows."""
    stored = {name: facts for name in CARD_FILES if (facts := folder.facts(name))}
    counts: dict[str, Counts] = {}
    finished = finished_categories(folder)
    for category in finished:
        told = folder.facts(finished_file(category)).get(COUNTED)
        with contextlib.suppress(DamagedError):  # its own turn tells it; here it would stop the others
            counts[category] = told or counted(read_pair_rows(folder, category))
    text = card_text(
        counts,
        config=stored.get("config.json"),
        settings=sampled_with(folder),
        about=stored.get("split.json", {}).get("about"),
        scores=stored.get("scores.json"),
        detection=stored.get("detection.json"),
        archived=bool(finished) and layout_of(folder, finished[0]) == "webdataset",
    )
    folder.write_bytes(f"{PAIRS}/README.md", text.encode())


def sampled_with(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What each finished category's pairs were sampled with: what was asked for then, or else as the run says.

    Cells of a table write nothing down of their own: they sample as their run says.
    """
    run = folder.facts("config.json").get("synthesize", {})
    names = {category: settings_file(category) for category in finished_categories(folder)}
    merged = {category: {**run, **folder.facts(name)} for category, name in names.items()}
    return {category: settings for category, settings in merged.items() if settings}


def finished_categories(folder: RunFolder) -> list[str]:
    """Sorted names of the categories whose pairs are complete."""
    return [name for name in folder.folders(PAIRS) if layout_of(folder, name)]


def layout_of(folder: RunFolder, category: str) -> str:
    """The layout of a category's finished pairs, as ``synthesize.layout`` names it; empty where they are not complete.

    Raises:
        PairsError: both layouts lie there.
    """
    found = [layout for layout, file in TOLD_IN.items() if folder.exists(_name(category, file))]
    if len(found) > 1:
        raise PairsError(
            f"{folder.uri}/{_name(category, '')} holds pairs in two layouts, {' and '.join(found)}; remove it, or the "
            "files of one layout, and type: dhdiff-ray submit synthesize"
        )
    return found[0] if found else ""


def read_pair_rows(folder: RunFolder, category: str) -> list[dict[str, Any]]:
    """The metadata rows of one finished category, by defect and index; alike in both layouts but for ``files``.

    Raises:
        PairsError: the category has no finished pairs, or some in two layouts.
        DamagedError: a line is no row.
    """
    layout = layout_of(folder, category)
    if not layout:
        raise PairsError(f"no finished pairs of {category!r} in {folder.uri}; submit synthesize for this run first")
    file = TOLD_IN[layout]
    name = _name(category, file)
    try:
        data = folder.read_bytes(name)
        lines = [json.loads(line) for line in data.decode().splitlines()]
    except ValueError as error:
        raise DamagedError.of(folder.uri, name, f"a line is no JSON: {error}") from None
    told = folder.facts(finished_file(category)).get(file)
    if told and promise(data) != told:
        raise DamagedError.of(folder.uri, name, "rows are missing or are not those that were written")
    if layout == "mvtec":
        return lines
    return [row for line in lines for row in archives.read_manifest(folder, _name(category, ""), line)]


def readable_rows(
    folder: RunFolder, categories: Sequence[str], failed: Callable[[str, str], object]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of finished categories; ``failed`` takes each damaged one and why, and the others go on.

    Raises:
        PairsError: a category has no finished pairs.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for category in categories:
        try:
            rows[category] = read_pair_rows(folder, category)
        except DamagedError as error:
            failed(category, str(error))
    return rows


def pairs_digest(folder: RunFolder, category: str) -> str:
    """Hash of what a category's pairs were made from: every request, the model, the settings; empty without pairs."""
    layout = layout_of(folder, category)
    if not layout:
        return ""
    return hashlib.sha256(folder.read_bytes(_name(category, TOLD_IN[layout]))).hexdigest()[:16]


def conditions_of(run: Run, category: str) -> dict[str, Any]:
    """What the scores and figures of a category depend on: settings, split and pairs."""
    digests = {"config_digest": run.config.digest(), "split_digest": run.category(category).digest}
    return {**digests, "pairs_digest": pairs_digest(run.folder, category)}


def read_pair(folder: RunFolder, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (h, w, 3) and mask uint8 (h, w) of 0 and 255 that a metadata row names."""
    pair = read_encoded(folder, row)
    image, mask = (
        _pixels(folder, name, data) for name, data in zip(files_of(row), (pair.image, pair.mask), strict=True)
    )
    return image, mask


def read_encoded(folder: RunFolder, row: Mapping[str, Any]) -> Encoded:
    """The same as the bytes that were written.

    Raises:
        DamagedError: a file that holds them is gone or cut short.
    """
    if archives.FILES in row:
        return Encoded(*archives.read_pictures(folder, _name(row["category"], ""), row))
    image, mask = (_content(folder, name) for name in files_of(row))
    return Encoded(image, mask)


def files_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """The files of the run that hold the image and the mask of a row: of an archive twice its tar."""
    if archives.FILES in row:
        tar = _name(row["category"], row[archives.FILES]["tar"])
        return tar, tar
    return _name(row["category"], row["file_name"]), _name(row["category"], row["mask_file_name"])


def pair_bytes(resolution: int) -> int:
    """Bytes of one pair on disk at most: an image that PNG cannot compress, and a mask."""
    return resolution**2 * 3 + resolution**2 // 8 + 2048


def settings_promise(folder: RunFolder, category: str) -> dict[str, Any]:
    """What a finished category's marker tells of the settings: their size and hash, where there are any."""
    name = settings_file(category)
    return {SETTINGS: promise(folder.read_bytes(name))} if folder.exists(name) else {}


def settings_file(category: str) -> str:
    """What the pairs of a category are sampled with."""
    return f"{SETTINGS}/{category}.json"


def finished_file(category: str) -> str:
    """A finished category's marker: size and hash of its settings, metadata and normal images beside its pairs."""
    return f"{SETTINGS}/{category}/finished.json"


def _content(folder: RunFolder, name: str) -> bytes:
    try:
        return folder.read_bytes(name)
    except FileNotFoundError as error:
        raise DamagedError.of(folder.uri, name, error) from None


def _pixels(folder: RunFolder, name: str, data: bytes) -> np.ndarray:
    try:
        return np.array(Image.open(io.BytesIO(data)))
    except UNREADABLE as error:
        raise DamagedError.of(folder.uri, name, error) from None


def _name(category: str, file: str) -> str:
    return f"{PAIRS}/{category}/{file}".rstrip("/")


def image_file(request: Request) -> str:
    """Name of a pair's image in its category's folder."""
    return f"test/{request.defect}/{request.name}.png"


def mask_file(request: Request) -> str:
    """Name of a pair's mask in its category's folder."""
    return f"ground_truth/{request.defect}/{request.name}_mask.png"


def pair_row(request: Request) -> dict[str, Any]:
    """What a row tells of a request, and the names of its pictures in MVTec's tree."""
    return {"file_name": image_file(request), "mask_file_name": mask_file(request), **request.as_dict()}
