"""Output of the pipeline: decoded pairs, blended into their product, as pictures, arrays or tensors.

How a drawn image passes into the product it is drawn on is not in the paper. Outside a raw mask the product stays as it
is. What is drawn inside follows it closely, but not to the grey value: a large defect changes brightness far beyond its
mask, and where the raw mask ends a straight edge was left in a quarter of the pairs. Outside its mask a pair is good
surface by its own word, so the drawn image may give way to the product there.
Shapes: b pairs, h x w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional

OutputType = Literal["pil", "np", "pt"]
ScoreMaps = list[list[dict[str, Any]]]
"""By step and text-attention layer; see :class:`DHDiffOutput`."""


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
    score_maps: ScoreMaps | None = None
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


def share_of_drawn(inside: Tensor, mask: Tensor, step: int, blend: bool, fade: bool) -> Tensor:
    """Weight of the drawn image (b, 1, h, w); the product has the rest.

    Args:
        inside: raw masks (b, 1, h, w), 0 or 1; the picture's own edge is none.
        mask: made masks (b, 1, h, w), in them above 0.5.
        step: pixels of a latent position.
        blend: take a raw mask's last ``step`` pixels to pass over.
        fade: show what is drawn beside the made mask the less, the nearer the raw mask's edge is.
    """
    share = blended(inside, step) if blend else inside
    return torch.minimum(share, faded(inside, (mask > 0.5).to(inside), step // 2)) if fade else share


def blended(inside: Tensor, reach: int) -> Tensor:
    """How much of a drawn image is shown inside a raw mask (b, 1, h, w): 0 at its edge, 1 ``reach`` pixels further in.

    What is drawn follows its surroundings to within a latent position; this takes it to the pixel.
    """
    near = functional.avg_pool2d(inside, 2 * reach + 1, 1, reach, count_include_pad=False)
    return inside * (2 * near - 1).clamp(min=0)


def faded(inside: Tensor, mask: Tensor, reach: int) -> Tensor:
    """How much of a drawn image is shown inside a raw mask: all of it within ``reach`` pixels of the made mask.

    From there to the raw mask's edge it falls to nothing, by the distances to either; nothing where the mask is empty.

    Args:
        inside: raw masks (b, 1, h, w), 0 or 1; the picture's own edge is none.
        mask: made masks (b, 1, h, w), 0 or 1.
        reach: pixels around a made mask that belong to the defect.
    """
    to_edge, to_mask = distance_to(1 - inside), (distance_to(mask) - reach).clamp(min=0)
    return inside / (1 + (to_mask / to_edge.clamp(min=1)).nan_to_num(torch.inf, torch.inf))


def distance_to(region: Tensor) -> Tensor:
    """Distance in pixels of every position to the nearest one of a region (b, 1, h, w); infinite where there is none.

    Exact: first along each row, then over each column (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled
    Functions", 2012, without their faster second pass).
    """
    along = torch.minimum(_since(region), _since(region.flip(-1)).flip(-1)).square()
    y = torch.arange(region.shape[-2], device=region.device, dtype=along.dtype)[:, None]
    return torch.stack([(along + (y - row).square()).amin(2) for row in y], 2).sqrt()


def _since(region: Tensor) -> Tensor:
    """Pixels since a row's last position of the region, going right."""
    x = torch.arange(region.shape[-1], device=region.device, dtype=torch.float32)
    return x - torch.where(region > 0, x, -torch.inf).cummax(-1).values
