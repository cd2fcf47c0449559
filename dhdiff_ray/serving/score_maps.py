"""What text attention saw while a pair was drawn, for who asks: S^I, S^A, S^O and what they become (Eq. 6, Eq. 7).

Decided: one picture per map, the mean over the defect's words, heads, layers and a few steps spread over the sampling
(all steps of a large network would be gigabytes); each is stretched from its lowest to its highest value, which are
told beside it, and is transparent where the network did not look.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.prompts import defect_words
from dhdiff_ray.report.explain import defect_maps

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.make import Prepared
    from dhdiff_ray.records import Request

STEPS = 4
"""Steps that are looked at: the first, the last, and some between."""


def looked_at(total: int) -> list[int]:
    """Which of so many steps, counted from 0."""
    return sorted({round(i * (total - 1) / (STEPS - 1)) for i in range(STEPS)})


def score_maps(
    request: Request,
    at: int,
    pipeline: DHDiffPipeline,
    ready: Prepared,
    maps: Sequence[Sequence[dict[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """One pair's maps.

    Args:
        request: of the pair.
        at: its place in the pass.
        pipeline: that drew it.
        ready: what the pass was drawn from.
        maps: of each step that was looked at, of each layer: tensors (b, t, h, w).

    Returns:
        Name of a map -> ``png`` (base64, grey with alpha, at the pair's size), ``low`` and ``high`` (the values that
        are black and white). Empty where the prompt does not name the defect in the network's own words.
    """
    from dhdiff_ray.model.text import mark_defect_tokens, tokenize

    words = [defect_words(request.defect)]
    tokens = mark_defect_tokens(pipeline.tokenizer, tokenize(pipeline.tokenizer, [request.prompt]), words)[0].numpy()
    if not tokens.any():
        return {}
    own = [{k: v[at : at + 1] for k, v in layer.items() if k != "layer"} for step in maps for layer in step]
    cut = ready.cuts[at]
    found = defect_maps(own, tokens, cut[0].stop - cut[0].start)
    return {name: _told(values, cut, ready.bases[at].shape[:2]) for name, values in found.items()}


def _told(values: np.ndarray, cut: tuple[slice, slice], size: tuple[int, ...]) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    stretched = (values - low) / (high - low) if high > low else np.zeros_like(values)
    picture = np.zeros((*size, 2), np.uint8)
    picture[cut] = np.stack([(stretched * 255).round(), np.full_like(values, 255)], axis=-1).astype(np.uint8)
    return {"png": base64.b64encode(png_bytes(picture)).decode(), "low": round(low, 6), "high": round(high, 6)}
