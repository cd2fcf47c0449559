"""Domain-Decoupled Attention: Eq. 4 and Eq. 5, section III-C.

Replaces self-attention. Inside this layer the annotation cannot change the image, nor the image the annotation.
Decided: both domains start from the backbone's projections; F^R and F^I are the layer's normalised inputs.
Shapes: b pairs, n tokens, c channels.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dhdiff_ray.model.domains import Strands, join, split
from dhdiff_ray.model.entangled import attend
from dhdiff_ray.model.reference import ZeroConv

DDAStart = Literal["random", "own"]


class DomainDecoupledAttention(nn.Module):
    """Separate attention per domain, with the reference in the image's keys and values.

    Args:
        attention: the backbone's layer, whose projections both domains start from.
        layer: its number among the self-attention layers.
        zero_conv_gain: see :class:`ZeroConv`.
        start: ``own``: the image's keys start as its queries, so that a position looks at itself first.
    """

    def __init__(self, attention: Any, layer: int, zero_conv_gain: float = 1.0, start: DDAStart = "random") -> None:
        super().__init__()
        self.layer = layer
        self.image = ImageCrossAttention(attention, zero_conv_gain)
        self.annotation = AnnotationSelfAttention(deepcopy(attention))
        if start == "own":
            look_at_itself(attention)  # the image's

    def forward(self, hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c) -> (2b, n, c); while recording, reference latents (b, n, c) -> (b, n, c)."""
        if strands.recording:
            strands.references[self.layer] = hidden_states
            return self.image(hidden_states, None)  # the Siamese encoder: the image's own weights
        f_image, f_annotation = split(hidden_states)  # (b, n, c) each
        f_reference = strands.reference_for(self.layer, f_image)  # (b, n, c) or None
        return join(self.image(f_image, f_reference), self.annotation(f_annotation))  # (2b, n, c)


def look_at_itself(attention: Any) -> None:
    """Give W_Q and W_K one value: a position's score with itself is a squared norm, above that with most others.

    Ours: what F^R holds at a position then reaches the image there from the first steps on, while the average that
    random projections take over all positions tells little of it. Doubled, so that the softmax is sharp enough.
    """
    with torch.no_grad():
        attention.to_q.weight.mul_(2)
        attention.to_k.weight.copy_(attention.to_q.weight)


class ImageCrossAttention(nn.Module):
    """Eq. 4: Q from F^I; K and V from zeta(F^R) + F^I."""

    def __init__(self, attention: Any, zero_conv_gain: float = 1.0) -> None:
        super().__init__()
        self.project = attention
        self.zero_conv = ZeroConv(attention.query_dim, zero_conv_gain)

    def forward(self, f_image: Tensor, f_reference: Tensor | None) -> Tensor:
        """(b, n, c), (b, n, c) -> (b, n, c)."""
        if f_reference is None:
            return attend(self.project, f_image, f_image)
        return attend(self.project, f_image, self.zero_conv(f_reference) + f_image)


class AnnotationSelfAttention(nn.Module):
    """Eq. 5: Q, K and V from F^A alone."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.project = attention

    def forward(self, f_annotation: Tensor) -> Tensor:
        """(b, n, c) -> (b, n, c)."""
        return attend(self.project, f_annotation, f_annotation)
