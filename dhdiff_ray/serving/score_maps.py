"""Score maps of text attention for a pair, on request: S^I, S^A, S^O and the fused maps (Eq. 6, Eq. 7).

Decided: one picture per map, the mean over the defect's words, heads, layers and a few steps spread over the sampling
(all steps of a large network would be gigabytes); each is stretched from its lowest to its highest value, which are
told beside it, and is transparent where the network did not look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.prompts import defect_words
from dhdiff_ray.report.explain import defect_maps
from dhdiff_ray.serving.drawn import ScoreMap

if TYPE_CHECKING:
    from torch import Tensor

    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.make import Prepared
    from dhdiff_ray.records import Request

STEPS = 4
"""Steps that are kept: the first, the last, and some between."""


def steps_to_keep(total: int) -> list[int]:
    """The steps whose maps are kept, counted from 0."""
    return sorted({round(i * (total - 1) / (STEPS - 1)) for i in range(STEPS) if total})


def score_maps(
    request: Request,
    place: int,
    pipeline: DHDiffPipeline,
    ready: Prepared,
    maps: Sequence[Sequence[dict[str, Tensor]]],
) -> dict[str, ScoreMap]:
    """One pair's maps.

    Args:
        request: of the pair.
        place: its index in the pass.
        pipeline: the sampler that drew it.
        ready: inputs of the pass.
        maps: of each kept step and each layer, tensors (b, t, h, w).

    Returns:
        By name; empty where the prompt does not name the defect in the network's own words, or no step was drawn.
    """
    from dhdiff_ray.model.text import mark_defect_tokens, tokenize

    words = [defect_words(request.defect)]
    tokens = mark_defect_tokens(pipeline.tokenizer, tokenize(pipeline.tokenizer, [request.prompt]), words)[0].numpy()
    if not tokens.any() or not maps:
        return {}
    layers = [layer for step in maps for layer in step]
    of_pair = [{name: v[place : place + 1] for name, v in layer.items() if name != "layer"} for layer in layers]
    cut = ready.cuts[place]
    means = defect_maps(of_pair, tokens, cut[0].stop - cut[0].start)
    return {name: _stretched(values, cut, ready.bases[place].shape[:2]) for name, values in means.items()}


def _stretched(values: np.ndarray, cut: tuple[slice, slice], size: tuple[int, ...]) -> ScoreMap:
    low, high = float(values.min()), float(values.max())
    grey = (values - low) / (high - low) if high > low else np.zeros_like(values)
    picture = np.zeros((*size, 2), np.uint8)
    picture[cut] = np.stack([(grey * 255).round(), np.full_like(values, 255)], axis=-1).astype(np.uint8)
    return ScoreMap(png_bytes(picture), round(low, 6), round(high, 6))
