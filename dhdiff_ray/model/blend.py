"""How a drawn image passes into the product it is drawn on (not in the paper).

Outside a raw mask the product stays as it is. What is drawn inside follows it closely, but not to the grey value: a
large defect changes brightness far beyond its mask, and where the raw mask ends a straight edge was left in a quarter
of the pairs. Outside its mask a pair is good surface by its own word, so the drawn image may give way to the product
there.
Shapes: b pairs, h x w pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def share_of_drawn(inside: Tensor, mask: Tensor, step: int, blend: bool, fade: bool) -> Tensor:
    """How much of a drawn image is shown (b, 1, h, w); of what is left the product is.

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
