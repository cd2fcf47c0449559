"""What a client may see beside its pairs: previews while they are drawn, and what text attention saw (Eq. 6, Eq. 7).

Decided of previews, which are not in the paper: DPM-Solver++ keeps its estimate of the finished latents, so a look
costs a decoding and no pass of the network; the next one waits until all of them together have taken no more than a
share of the drawing's time, however slow the autoencoder is; none of them draws a random number, so a pair has the same
bytes seen or unseen. Decided of score maps (S^I, S^A, S^O and the fused ones): one picture per map, the mean over the
defect's words, heads, layers and a few steps spread over the sampling (all steps of a large network would be
gigabytes); each is stretched from its lowest to its highest value, which are told beside it, and is transparent where
the network did not look.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.prompts import defect_words
from dhdiff_ray.report.explain import defect_maps
from dhdiff_ray.serving.drawn import Preview, ScoreMap

if TYPE_CHECKING:
    from torch import Tensor

    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.make import Prepared
    from dhdiff_ray.records import Request

MOST = 12
"""Previews of one pair, at most."""
SIDE = 128
"""Largest side of a preview in pixels."""
STEPS = 4
"""Steps whose score maps are kept: the first, the last, and some between."""


class Previews:
    """The previews of one pass.

    Args:
        ready: inputs of the pass.
        wanted: whether each of its pairs is previewed.
        total: steps of the pass.
        share: of the drawing time that previews may take; 0 makes none.
    """

    def __init__(self, ready: Prepared, wanted: Sequence[bool], total: int, share: float) -> None:
        self.ready, self.total, self.share = ready, total, share
        self.places = [i for i, yes in enumerate(wanted) if yes]
        self.spent = 0.0
        """Seconds that looking took so far."""
        self._begun = time.perf_counter()
        self._next = 1 if self.places and share > 0 else total

    def after_step(self, pipeline: DHDiffPipeline, done: int, latents: Tensor) -> list[Preview | None] | None:
        """A preview of each pair for which one was asked; None if it is too early for the next.

        Args:
            pipeline: the sampler.
            done: its steps so far.
            latents: (2b, c, h', w') after the step.
        """
        if done < self._next or done >= self.total:  # the last step's is the pair itself
            return None
        if latents.is_cuda:
            import torch

            torch.cuda.synchronize()  # else the steps' own time would count as ours
        start = time.perf_counter()
        if self.spent > self.share * (start - self._begun - self.spent):
            return None
        self._next = done + -(-self.total // MOST)
        previews: list[Preview | None] = [None] * len(self.ready.cuts)
        for place, (image, mask) in zip(self.places, self._pictures(pipeline, latents), strict=True):
            previews[place] = Preview(_small_png(image), _small_png(mask))
        self.spent += time.perf_counter() - start
        return previews

    def _pictures(self, pipeline: DHDiffPipeline, latents: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """Image (h, w, 3) and mask (h, w) as the sampler expects them, in their whole images."""
        from torch.nn import functional

        from dhdiff_ray.model.domains import join, split
        from dhdiff_ray.model.latents import latent_shape

        image, annotation = split(_estimate(pipeline.scheduler, latents))
        decoded, float_masks = pipeline.decode_latents(join(image[self.places], annotation[self.places]))
        images = (decoded * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        masks = (float_masks[:, 0] > 0.5).cpu().numpy()
        drawn = np.ones(masks.shape, bool)
        if self.ready.call["background"] != "free":  # as the pipeline puts the base back at the end
            factor = latent_shape(pipeline.vae)[1]
            pooled = functional.max_pool2d(self.ready.call["raw_mask"][self.places], factor)
            drawn = functional.interpolate(pooled, scale_factor=factor)[:, 0].numpy() > 0
        pictures = []
        for j, place in enumerate(self.places):
            whole, cut = self.ready.bases[place].copy(), self.ready.cuts[place]
            mask = np.zeros(whole.shape[:2], np.uint8)
            whole[cut] = np.where(drawn[j][..., None], images[j], whole[cut])
            mask[cut] = (drawn[j] & masks[j]) * np.uint8(255)
            pictures.append((whole, mask))
        return pictures


def _estimate(scheduler: Any, latents: Tensor) -> Tensor:
    """The sampler's estimate of the finished latents; the noisy latents if it keeps none."""
    kept = getattr(scheduler, "model_outputs", None)
    if kept and kept[-1] is not None and str(scheduler.config.get("algorithm_type")).endswith("dpmsolver++"):
        return kept[-1]
    return latents


def _small_png(array: np.ndarray) -> bytes:
    """The picture as PNG, at most ``SIDE`` large."""
    picture = Image.fromarray(array)
    if max(picture.size) > SIDE:
        kind = Image.Resampling.NEAREST if array.ndim == 2 else Image.Resampling.BOX
        scale = SIDE / max(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), kind)
    return png_bytes(np.asarray(picture))


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
