"""Open every file of a dataset and say what would spoil a run: unreadable, doubtful masks, duplicates over the split.

Not in the paper. What we decided: files are decoded side by side by threads of one machine, or by whoever is handed in
(``on_ray/verbs/verify.py``: every core of a cluster); equal content is found by SHA-256; nearly equal pictures by a
256-bit difference hash, confirmed on a 32 x 32 thumbnail, so that aligned products are not taken for copies; a
duplicate is an error where it lies on both sides of the split, else a warning (equal files never do: a split puts them
on one side).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.images import ImageError, header, mask_array, picture_rgb
from dhdiff_ray.data.registry import DatasetError, Remark, configured
from dhdiff_ray.data.split import Split, SplitError, split_as
from dhdiff_ray.data.survey import side_by_side
from dhdiff_ray.records import Sample

HASH_SIDE, THUMB_SIDE = 16, 32
NEAR_BITS, NEAR_LEVELS = 10, 2.0
"""Most differing bits of 256, and largest mean difference in grey levels, of two pictures called nearly equal."""


@dataclass(frozen=True)
class Finding:
    """One thing to mend; ``error`` would spoil a run, ``warning`` needs a look."""

    level: Literal["error", "warning"]
    code: str
    path: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Inspection:
    """What one image and its masks are like."""

    findings: tuple[Finding, ...] = ()
    digest: str = ""
    bits: np.ndarray = field(default_factory=lambda: np.zeros(HASH_SIDE * HASH_SIDE // 8, np.uint8))
    thumb: np.ndarray = field(default_factory=lambda: np.zeros((THUMB_SIDE, THUMB_SIDE), np.uint8))


def verify(
    data: DataConfig,
    *,
    seed: int = 0,
    workers: int = 0,
    samples: Sequence[Sample] | None = None,
    inspecting: Callable[[Sequence[Sample]], Iterable[tuple[Sample, Inspection]]] | None = None,
) -> tuple[list[Finding], dict[str, Any]]:
    """Everything that is wrong with a dataset as a run would read it.

    Args:
        data: dataset, root, categories, and how it would be split.
        seed: of the split.
        workers: threads; 0 takes as many as there are cores.
        samples: what to look at instead of scanning.
        inspecting: gives each sample with its inspection, in any order; by default threads do.

    Returns:
        Findings, errors first, and a summary: images, masks, and how the split would fall.

    Raises:
        DatasetError: nothing can be listed at all.
    """
    findings: list[Finding] = []
    if samples is None:
        lenient = data.model_copy(update={"skip_bad": True})
        samples = configured(lenient, lambda line: findings.append(_remark(line))).scan(
            Path(data.root), data.categories
        )
    seen = dict(inspecting(samples) if inspecting else side_by_side(inspect, samples, workers))
    inspections = {sample: seen[sample] for sample in samples}
    findings += [f for inspection in inspections.values() for f in inspection.findings]
    split = _split(data, seed, inspections, findings)
    readable = {s: inspection for s, inspection in inspections.items() if inspection.digest}
    findings += _duplicates(readable, split)
    findings.sort(key=lambda f: (f.level, f.code, f.path))
    masks = sum(len(s.masks) for s in samples)
    summary: dict[str, Any] = {"images": len({s.image for s in samples}), "masks": masks}
    if split is not None:
        summary["split"] = {"mode": split.mode, "train": len(split.train), "test": len(split.test)}
        summary["test_holds_training_images"] = split.test_holds_training_images
    summary |= {level: sum(f.level == level for f in findings) for level in ("error", "warning")}
    return findings, summary


def _remark(line: str) -> Finding:
    path = line.path if isinstance(line, Remark) else ""
    problem = line.removeprefix("left out: ")
    if problem == line:
        return Finding("warning", "remark", path, line, "see whether it is meant")
    remedy = "mend the file or the table; --set data.skip_bad=true leaves it out"
    return Finding("error", "left-out", path, problem, remedy)


def inspect(sample: Sample) -> Inspection:
    """Open one image and its masks; what is wrong with them becomes findings."""
    findings: list[Finding] = []
    try:
        size, _, turned = header(sample.image)
        picture = picture_rgb(sample.image)
    except ImageError as error:
        unreadable = Finding("error", "unreadable", sample.image, str(error), "restore the file from its source")
        return Inspection((unreadable,))
    if turned:
        message = "the camera marked it as turned, so it is turned upright when read"
        remedy = "see that its mask was drawn on the upright picture"
        findings.append(Finding("warning", "turned", sample.image, message, remedy))
    if sample.masks:
        findings += _inspect_masks(sample, size)
    grey = picture.convert("L")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    thumb = np.asarray(grey.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX))
    return Inspection(tuple(findings), hashlib.sha256(Path(sample.image).read_bytes()).hexdigest(), bits, thumb)


def _inspect_masks(sample: Sample, size: tuple[int, int]) -> list[Finding]:
    union = np.zeros(size[::-1], dtype=bool)
    for path in sample.masks:
        try:
            values = mask_array(path)
        except ImageError as error:
            return [Finding("error", "mask-unreadable", path, str(error), "restore the file from its source")]
        if values.shape != union.shape:
            problem = f"the mask is {values.shape[::-1]} pixels, its image {sample.image} is {size}"
            return [Finding("error", "mask-size", path, problem, "export the mask at the size of its image, upright")]
        union |= np.isin(values, sample.values) if sample.values else values > 0
    path, share = sample.masks[0], float(union.mean())
    if share == 0:
        problem = f"no pixel is set, but {sample.image} is listed as {sample.defect!r}"
        return [Finding("error", "mask-empty", path, problem, "draw the defect, or move the image to the normal ones")]
    if share == 1:
        problem = "every pixel is set"
        return [Finding("error", "mask-full", path, problem, "draw the defect alone: 0 where the product is sound")]
    corners = union[0, 0] and union[0, -1] and union[-1, 0] and union[-1, -1]
    if share > 0.5 and corners:
        problem = f"{share:.0%} of the pixels are set, all corners among them: is it inverted?"
        return [Finding("warning", "mask-inverted", path, problem, "swap black and white if the defect is black")]
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        problem = "JPEG smears the edges of a mask, and every value above 0 counts"
        return [Finding("warning", "mask-lossy", path, problem, "save masks as PNG")]
    return []


def _split(
    data: DataConfig, seed: int, inspections: Mapping[Sample, Inspection], findings: list[Finding]
) -> Split | None:
    """The split a run would make; what stands in its way becomes a finding."""
    root = Path(data.root).absolute()
    hashes = {Path(s.image).relative_to(root).as_posix(): inspection.digest for s, inspection in inspections.items()}
    try:
        return split_as(data, seed, list(inspections), hashes=hashes)
    except (SplitError, DatasetError) as error:
        findings.append(Finding("error", "split", data.root, str(error), "see the message"))
        return None


def _duplicates(inspections: dict[Sample, Inspection], split: Split | None) -> list[Finding]:
    sides: dict[str, set[str]] = {}
    if split is not None and split.mode != "full":
        for name, side in (("train", split.train), ("test", split.test)):
            for sample in side:
                sides.setdefault(sample.image, set()).add(name)
    # One image may stand for several defects.
    first = {sample.image: (sample, inspection) for sample, inspection in inspections.items()}
    findings: list[Finding] = []
    by_digest: dict[str, list[Sample]] = {}
    for sample, inspection in first.values():
        by_digest.setdefault(inspection.digest, []).append(sample)
    for same in by_digest.values():
        findings += [_pair("duplicate", "has the same content as", same[0], other, sides) for other in same[1:]]
    by_category: dict[str, list[tuple[Sample, Inspection]]] = {}
    for same in by_digest.values():
        by_category.setdefault(same[0].category, []).append((same[0], first[same[0].image][1]))
    for of_category in by_category.values():
        for a, b in _near(of_category):
            if a.group is None or a.group != b.group:
                findings.append(_pair("near-duplicate", "looks nearly the same as", a, b, sides))
    return findings


def _near(inspected: Sequence[tuple[Sample, Inspection]]) -> list[tuple[Sample, Sample]]:
    """Pairs whose hashes and thumbnails are nearly equal; compared in blocks, so that memory stays small."""
    if len(inspected) < 2:
        return []
    hashes = np.stack([inspection.bits for _, inspection in inspected]).view(np.uint64)
    pairs: list[tuple[Sample, Sample]] = []
    for start in range(0, len(inspected), 256):
        differing = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None]).sum(-1, dtype=np.int32)
        for at, j in np.argwhere(differing <= NEAR_BITS):
            i = start + at
            if i < j:
                (a, of_a), (b, of_b) = inspected[i], inspected[j]
                apart = np.abs(of_a.thumb.astype(np.int16) - of_b.thumb).mean()
                flat = min(of_a.thumb.std(), of_b.thumb.std()) < NEAR_LEVELS  # a blank picture equals any other
                if apart <= NEAR_LEVELS and not flat:
                    pairs.append((a, b))
    return pairs


def _pair(code: str, words: str, a: Sample, b: Sample, sides: dict[str, set[str]]) -> Finding:
    across = sides.get(a.image) != sides.get(b.image)
    message = f"{words} {a.image}" + (", on the other side of the split" if across else "")
    remedy = "delete one, or give both the same group in the manifest"
    return Finding("error" if across else "warning", code, b.image, message, remedy)
