"""Previews of pairs while they are drawn: small pictures of the sampler's current estimate.

Not in the paper. Decided: DPM-Solver++ keeps its estimate of the finished latents, so a look costs a decoding and no
pass of the network; the next one waits until all of them together have taken no more than a share of the drawing's
time, however slow the autoencoder is; none of them draws a random number, so a pair has the same bytes seen or unseen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.serving.drawn import Preview

if TYPE_CHECKING:
    from torch import Tensor

    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.make import Prepared

MOST = 12
"""Previews of one pair, at most."""
SIDE = 128
"""Largest side of a preview in pixels."""


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
