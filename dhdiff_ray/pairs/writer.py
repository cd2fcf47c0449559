"""Made pairs on disk: MVTec's tree, a ``metadata.jsonl`` per category, a card; the only file that writes pairs.

The paper's detectors are trained on such pairs (section IV-D). The tree is the one that anomalib's ``MVTecAD`` and
Hugging Face's ``load_dataset`` read. What we decided: the mask is written first and the image appears by rename, so an
image that is there is a whole pair; equal pairs are equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.images import read_image
from dhdiff_ray.pairs.card import card_text
from dhdiff_ray.records import GOOD, Pair, Request, Sample
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

PAIRS = "pairs"
METADATA = "metadata.jsonl"
SETTINGS = "synthesis"
"""Folder of a run with what the pairs of each category are sampled with."""
CARD_FILES = ("config.json", "split.json", "scores.json", "detection.json")
"""What of a run the card tells."""


class PairsError(ValueError):
    """A tree of pairs with gaps, strangers or unreadable rows; the message says what to run."""


class PairWriter:
    """Lays down the pairs of one run under ``pairs/``; workers may write side by side."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def has_pair(self, request: Request) -> bool:
        """Whether the pair is there as a whole."""
        return self.folder.exists(_name(request.category, _image_file(request)))

    def write_pair(self, pair: Pair) -> None:
        """Write the mask, then the image; writing the same pair again changes nothing.

        Raises:
            ValueError: image is not uint8 (h, w, 3), mask not uint8 (h, w) of the same size with 0 and 255 only.
        """
        image, mask, request = pair.image, pair.mask, pair.request
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a pair's image must be uint8 (h, w, 3), not {image.dtype} {image.shape}")
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2] or not np.isin(mask, (0, 255)).all():
            raise ValueError(
                f"a pair's mask must be uint8 {image.shape[:2]} of 0 and 255, not {mask.dtype} {mask.shape}"
            )
        self.folder.write_bytes(_name(request.category, _mask_file(request)), png_bytes(mask))
        self.folder.write_bytes(_name(request.category, _image_file(request)), png_bytes(image))

    def write_normals(
        self, category: str, train_goods: Sequence[Sample], test_goods: Sequence[Sample], resolution: int
    ) -> None:
        """Put real normal images beside the pairs, so that an anomaly detector can use the tree as it is."""
        for subset, samples in (("train", train_goods), ("test", test_goods)):
            for index, sample in enumerate(samples):
                name = _name(category, f"{subset}/{GOOD}/{index:06d}.png")
                if not self.folder.exists(name):
                    self.folder.write_bytes(name, png_bytes(read_image(sample, resolution)))

    def finish(
        self,
        category: str,
        requests: Sequence[Request],
        extra: Mapping[str, Any],
        by_pair: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    ) -> None:
        """Check that exactly the requested pairs are there; then write the category's metadata and the card.

        Args:
            category: the category that is complete now.
            requests: all requests of the category, over all defects.
            extra: plain values (no lists or tables) that go into every row, such as the configuration's hash.
            by_pair: plain values of one pair, by defect and index.

        Raises:
            PairsError: pairs are missing, or files lie there that no request asks for. Readers match images and
                masks by sorted order, so either would shift every pair behind it.
        """
        ordered = sorted(requests, key=lambda request: (request.defect, request.index))
        expected = {file for request in ordered for file in (_image_file(request), _mask_file(request))}
        start = len(_name(category, "")) + 1
        files = {file[start:] for file in self.folder.files(_name(category, ""))}
        files = {f for f in files if f.endswith(".png") and f.split("/")[1:2] != [GOOD]}
        if missing := sorted(expected - files):
            message = f"{len(missing)} files are missing, the first is {missing[0]}"
            raise PairsError(f"pairs of {category!r} are not complete: {message}; submit synthesize again to go on")
        if strangers := sorted(files - expected):
            message = f"{len(strangers)} files were not asked for, the first is {strangers[0]}"
            raise PairsError(f"pairs of {category!r}: {message}; ask for as many pairs as before, or use a new run")
        rows = [{**_row(r), **(by_pair or {}).get((r.defect, r.index), {}), **extra} for r in ordered]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.folder.write_bytes(_name(category, METADATA), lines.encode())
        write_card(self.folder)


def write_card(folder: RunFolder) -> None:
    """Write the card from what the run holds alone, so that it does not matter who writes it last, or how often."""
    stored = {name: folder.read_json(name) for name in CARD_FILES if folder.exists(name)}
    text = card_text(
        {category: read_pair_rows(folder, category) for category in finished_categories(folder)},
        config=stored.get("config.json"),
        settings=sampled_with(folder),
        about=stored.get("split.json", {}).get("about"),
        scores=stored.get("scores.json"),
        detection=stored.get("detection.json"),
    )
    folder.write_bytes(f"{PAIRS}/README.md", text.encode())


def sampled_with(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What each finished category's pairs were sampled with: what was asked for then, or else as the run says.

    Cells of a table write nothing down of their own: they sample as their run says.
    """
    run = folder.read_json("config.json").get("synthesize", {}) if folder.exists("config.json") else {}
    names = {category: f"{SETTINGS}/{category}.json" for category in finished_categories(folder)}
    merged = {category: {**run, **(folder.read_json(n) if folder.exists(n) else {})} for category, n in names.items()}
    return {category: settings for category, settings in merged.items() if settings}


def finished_categories(folder: RunFolder) -> list[str]:
    """Sorted names of the categories whose pairs are complete."""
    names = [file.split("/")[1] for file in folder.files(PAIRS) if file.count("/") == 2 and file.endswith(METADATA)]
    return sorted(names)


def read_pair_rows(folder: RunFolder, category: str) -> list[dict[str, Any]]:
    """The metadata rows of one finished category, by defect and index.

    Raises:
        PairsError: the category has no finished pairs.
    """
    name = _name(category, METADATA)
    if not folder.exists(name):
        raise PairsError(f"no finished pairs of {category!r} in {folder.uri}; submit synthesize for this run first")
    return [json.loads(line) for line in folder.read_bytes(name).decode().splitlines()]


def pairs_digest(folder: RunFolder, category: str) -> str:
    """Hash of what a category's pairs were made from: every request, the model, the settings; empty without pairs."""
    if not folder.exists(_name(category, METADATA)):
        return ""
    return hashlib.sha256(folder.read_bytes(_name(category, METADATA))).hexdigest()[:16]


def conditions_of(run: Run, category: str) -> dict[str, Any]:
    """What the scores and figures of a category depend on: settings, split and pairs."""
    digests = {"config_digest": run.config.digest(), "split_digest": run.category(category).digest}
    return {**digests, "pairs_digest": pairs_digest(run.folder, category)}


def read_pair(folder: RunFolder, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (h, w, 3) and mask uint8 (h, w) of 0 and 255 that a metadata row names."""
    image, mask = (
        np.array(Image.open(io.BytesIO(folder.read_bytes(_name(row["category"], row[key])))))
        for key in ("file_name", "mask_file_name")
    )
    return image, mask


def pair_bytes(resolution: int) -> int:
    """Bytes of one pair on disk at most: an image that PNG cannot compress, and a mask."""
    return resolution**2 * 3 + resolution**2 // 8 + 2048


def _name(category: str, file: str) -> str:
    return f"{PAIRS}/{category}/{file}".rstrip("/")


def _image_file(request: Request) -> str:
    return f"test/{request.defect}/{request.name}.png"


def _mask_file(request: Request) -> str:
    return f"ground_truth/{request.defect}/{request.name}_mask.png"


def _row(request: Request) -> dict[str, Any]:
    return {"file_name": _image_file(request), "mask_file_name": _mask_file(request), **request.as_dict()}
