"""What the pipeline gives back: pairs as pictures, arrays or tensors, and what text attention saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

OutputType = Literal["pil", "np", "pt"]


@dataclass
class DHDiffOutput(BaseOutput):
    """Pairs.

    With ``output_type="pt"``: images (b, 3, h, w) in [0, 1], float masks (b, 1, h, w) in [0, 1], masks of 0 and 1.
    With ``"np"``: the same as float32 (b, h, w, 3) and (b, h, w). With ``"pil"``: lists of RGB and L pictures; float
    masks stay an array.
    """

    images: Any
    float_masks: Any
    masks: Any
    score_maps: list[list[dict[str, Any]]] | None = None
    """Per step asked for and text-attention layer: ``image``, ``annotation``, ``control`` (b, t, h, w), and after
    fusion ``image_hat``, ``annotation_hat`` (Eq. 6 and 7, averaged over heads)."""


def as_output(images: Tensor, float_masks: Tensor, output_type: OutputType, score_maps: Any = None) -> DHDiffOutput:
    """Images (b, 3, h, w) and float masks (b, 1, h, w), both in [0, 1], in the form asked for; masks above 0.5."""
    masks = (float_masks > 0.5).to(images.dtype)
    if output_type == "pt":
        return DHDiffOutput(images=images, float_masks=float_masks, masks=masks, score_maps=score_maps)
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (b, h, w, 3)
    soft, hard = float_masks[:, 0].cpu().numpy(), masks[:, 0].cpu().numpy()
    if output_type == "np":
        return DHDiffOutput(images=pixels, float_masks=soft, masks=hard, score_maps=score_maps)
    pictures = [Image.fromarray(p) for p in (pixels * 255).round().astype(np.uint8)]
    pictured = [Image.fromarray(m) for m in (hard * 255).astype(np.uint8)]
    return DHDiffOutput(images=pictures, float_masks=soft, masks=pictured, score_maps=score_maps)
