"""How two domains share one batch: join, split and merge of z = (z^I, z^A), section III-B.

The only place that knows the order of the strands in a batch: first all images, then all annotations.
Shapes: b pairs, c channels, h x w positions, n = h * w tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def join(image: Tensor, annotation: Tensor) -> Tensor:
    """Fold the two domains into the batch: (b, ...) and (b, ...) -> (2b, ...)."""
    return torch.cat([image, annotation])


def split(joined: Tensor) -> tuple[Tensor, Tensor]:
    """Undo :func:`join`: (2b, ...) -> image (b, ...), annotation (b, ...)."""
    image, annotation = joined.chunk(2)
    return image, annotation


def zero_init(layer: nn.Module) -> nn.Module:
    """Set every parameter of a layer to zero, so that it starts without effect."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@dataclass
class Strands:
    """What the attention layers of one forward pass share; passed to each as ``strands``."""

    aspect: float  # height over width of the feature maps, to view n tokens as an h x w picture
    recording: bool = False
    """The batch holds reference latents only and each self-attention layer keeps its input as F^R."""
    references: dict[int, Tensor] = field(default_factory=dict)
    """F^R (b, n, c) by number of the self-attention layer; empty without a reference."""
    control_mask: Tensor | None = None  # control mask (b, 1, h, w) in [0, 1]; values of absent ones do not matter
    control_present: Tensor | None = None  # which pairs have a control mask (b,), 0 or 1
    defect_tokens: Tensor | None = None  # 1 where a text token belongs to the defect's words (b, t)

    watched: list[dict[str, Any]] | None = None
    """Where text-attention layers put their score maps, one dict per layer; None if they are not wanted."""

    def watch(self, layer: int, **maps: Tensor | None) -> None:
        """Keep score maps (b, heads, n, t) of one layer as pictures (b, t, h, w), averaged over the heads."""
        if self.watched is None:
            return
        seen: dict[str, Any] = {"layer": layer}
        for name, map_ in maps.items():
            if map_ is not None:
                picture = map_.detach().float().mean(1).transpose(1, 2)  # (b, t, n)
                seen[name] = picture.unflatten(-1, self.size(picture.shape[-1])).cpu()
        self.watched.append(seen)

    def size(self, tokens: int) -> tuple[int, int]:
        """Height and width of a feature map of so many tokens."""
        height = round((tokens * self.aspect) ** 0.5)
        return height, tokens // height

    def reference_for(self, layer: int, like: Tensor) -> Tensor | None:
        """F^R of this layer, or of the last encoder layer of the same shape (the decoder has no own)."""
        if layer in self.references:
            return self.references[layer]
        alike = [f for f in self.references.values() if f.shape[1:] == like.shape[1:]]
        return alike[-1] if alike else None


class DomainMerge(nn.Module):
    """The third stage, merging: each domain gets a position-wise view of the other, zero at the start.

    The paper names the stage (concatenation C of Eq. 7, then the shared CNN) and does not spell it out; without such
    a path pairs did not align in our trials.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_image = zero_init(nn.Conv2d(channels, channels, 1))
        self.to_annotation = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, joined: Tensor) -> Tensor:
        """(2b, c, h, w) -> (2b, c, h, w)."""
        image, annotation = split(joined)
        return join(image + self.to_image(annotation), annotation + self.to_annotation(image))
