"""What a dataset's folder holds, in numbers: counts, sizes, mask areas, and what is missing.

Not in the paper. What we decided: images are looked at by their headers alone, masks are opened; what cannot be read is
told by name and counted; the files are looked at side by side by threads, since Pillow decodes outside Python's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dhdiff_ray.data.images import ImageError, full_mask, header
from dhdiff_ray.data.registry import Dataset
from dhdiff_ray.records import Sample

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def survey(
    loader: Dataset, root: Path, categories: Sequence[str], tell: Callable[[str], None], *, areas: bool = True
) -> list[dict[str, Any]]:
    """One row per category, defect and side.

    Args:
        loader: reads the folder; set to ``skip_bad`` it tells what is missing and goes on.
        root: the dataset's folder.
        categories: empty takes all.
        tell: takes what cannot be read.
        areas: open the masks and measure them.

    Returns:
        Rows with ``category defect subset images masks groups sizes modes`` and, with ``areas``, ``mask_percent``:
        least, median and largest share of the image in percent.
    """
    samples = loader.scan(root, categories)
    heads: dict[str, tuple[tuple[int, int], str, bool]] = {}
    for path, head in side_by_side(partial(_or_error, header), list(dict.fromkeys(s.image for s in samples))):
        if isinstance(head, str):
            tell(head)
        else:
            heads[path] = head
    shares = dict(side_by_side(partial(_or_error, _share), [s for s in samples if s.masks])) if areas else {}
    rows = []
    kinds: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        kinds.setdefault((sample.category, sample.defect, sample.subset), []).append(sample)
    for (category, defect, subset), of_kind in sorted(kinds.items()):
        row: dict[str, Any] = {"category": category, "defect": defect, "subset": subset, "images": len(of_kind)}
        row["masks"] = sum(len(s.masks) for s in of_kind)
        row["groups"] = len({s.group for s in of_kind if s.group is not None})
        readable = [heads[s.image] for s in of_kind if s.image in heads]
        row["sizes"] = _sizes([size for size, _, _ in readable])
        row["modes"] = ", ".join(sorted({mode for _, mode, _ in readable}))
        if areas:
            values = []
            for share in (shares[s] for s in of_kind if s in shares):
                if isinstance(share, str):
                    tell(share)
                else:
                    values.append(100 * share)
            row["mask_percent"] = [round(float(f(values)), 3) for f in (np.min, np.median, np.max)] if values else []
        rows.append(row)
    return rows


def side_by_side(
    work: Callable[[_Item], _Found], items: Sequence[_Item], workers: int = 0
) -> Iterable[tuple[_Item, _Found]]:
    """(item, work(item)) in order, by as many threads as there are cores, or ``workers``."""
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        yield from zip(items, pool.map(work, items), strict=True)


def _or_error(work: Callable[[_Item], Any], item: _Item) -> Any:
    """What the work gives, or the words of why the item cannot be read."""
    try:
        return work(item)
    except ImageError as error:
        return str(error)


def _share(sample: Sample) -> float:
    return float(full_mask(sample).mean())


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return ""
    least, most = min(sizes), max(sizes)
    return f"{least[0]}x{least[1]}" + (f" to {most[0]}x{most[1]}" if most != least else "")
