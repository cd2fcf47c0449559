"""One HTML page that shows a dataset as the tool reads it: a few images of each defect, the mask's outline in red.

Not in the paper. What we decided: pictures are inside the page, so it opens anywhere; a file that cannot be read shows
its error in its place.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from dhdiff_ray.data.encode import jpeg_bytes
from dhdiff_ray.data.images import ImageError, full_mask, picture_rgb
from dhdiff_ray.data.registry import Dataset
from dhdiff_ray.data.survey import side_by_side
from dhdiff_ray.records import Sample

SIDE = 144
"""Longer side of a picture on the page, in pixels."""
RED = (255, 32, 32)


def preview(loader: Dataset, root: str, samples: Sequence[Sample], remarks: Sequence[str], each: int = 8) -> str:
    """The page.

    Args:
        loader: tells licence and source.
        root: the dataset's folder, for the title.
        samples: what it lists.
        remarks: what it told while listing.
        each: images shown of each category, defect and side, spread evenly.
    """
    from jinja2 import Environment

    kinds: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        name = f"{sample.defect} ({sample.subset or 'side not given'})"
        kinds.setdefault(sample.category, {}).setdefault(name, []).append(sample)
    chosen = {id(s): s for by_kind in kinds.values() for same in by_kind.values() for s in _spread(same, each)}
    pictures = {id(s): shown for s, shown in side_by_side(_shown, list(chosen.values()))}

    def shown(same: Sequence[Sample]) -> list[dict[str, Any]]:
        return [pictures[id(s)] for s in _spread(same, each)]

    categories = {
        category: [{"name": n, "count": len(same), "shown": shown(same)} for n, same in sorted(by_kind.items())]
        for category, by_kind in sorted(kinds.items())
    }
    anomalies = sum(not s.is_good for s in samples)
    facts = [
        ("Folder", root),
        ("Images", f"{len(samples)}, {anomalies} of them anomalies"),
        ("Licence", loader.licence + (" (forbids commercial use)" if loader.non_commercial else "")),
        ("Source", loader.source),
    ]
    text = (resources.files("dhdiff_ray.data") / "preview.html.j2").read_text()
    return (
        Environment(autoescape=True)
        .from_string(text)
        .render(
            title=f"{loader.name}: {', '.join(sorted(kinds)[:6])}{' …' if len(kinds) > 6 else ''}",
            facts=facts,
            remarks=remarks,
            categories=list(categories.items()),
            side=SIDE,
        )
    )


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image uint8 (h, w, 3) with the pixels around the mask bool (h, w) in red."""
    result = image.copy()
    result[binary_dilation(mask) & ~mask] = RED
    return result


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    return [samples[at * len(samples) // count] for at in range(count)] if len(samples) > count else list(samples)


def _shown(sample: Sample) -> dict[str, Any]:
    try:
        picture = picture_rgb(sample.image)
        scale = SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        small = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
        if sample.masks:
            mask = Image.fromarray(full_mask(sample).astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
            small = outlined(small, np.asarray(mask) > 0)
        return {"key": sample.key, "data": base64.b64encode(jpeg_bytes(small)).decode()}
    except ImageError as error:
        return {"key": sample.key, "error": str(error)}
