"""Concatenated attention, the ablation baseline the paper argues against: Eq. 1, 2 and 3, section III-A.

Also the multi-head arithmetic that the other attention layers share, and the two plain layers of blocks without DDA
or SSM. Shapes: b pairs, n tokens, t text tokens, c channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhdiff_ray.model.domains import Strands, join, split


def heads_of(attention: Any, x: Tensor) -> Tensor:
    """(b, n, c) -> (b, heads, n, c / heads)."""
    return x.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def project_out(attention: Any, x: Tensor) -> Tensor:
    """(b, heads, n, c / heads) -> (b, n, c), through the layer's output projection."""
    x = x.transpose(1, 2).flatten(-2)
    for layer in attention.to_out:
        x = layer(x)
    return x / attention.rescale_output_factor


def attend(attention: Any, queries: Tensor, context: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V with a diffusers layer: (b, n, c), (b, m, k) -> (b, n, c)."""
    q = heads_of(attention, attention.to_q(queries))
    k = heads_of(attention, attention.to_k(context))
    v = heads_of(attention, attention.to_v(context))
    return project_out(attention, F.scaled_dot_product_attention(q, k, v))


class SelfAttention(nn.Module):
    """Each domain attends to its own tokens with the shared projections: the backbone, run on each domain."""

    def __init__(self, attention: Any, layer: int) -> None:
        super().__init__()
        self.shared = attention
        self.layer = layer

    def forward(self, hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c) -> (2b, n, c)."""
        if strands.recording:
            strands.references[self.layer] = hidden_states
        return attend(self.shared, hidden_states, hidden_states)


class EntangledAttention(SelfAttention):
    """Eq. 1, Eq. 2, Eq. 3: one attention over the tokens of both domains together.

    The quadrants I_I, I_A, A_I, A_A of Eq. 2 are the blocks of one joint score map; Eq. 3's mixture holds after the
    joint softmax normalises them.
    """

    def forward(self, hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c) -> (2b, n, c); a lone reference attends to itself."""
        if strands.recording:
            return super().forward(hidden_states, strands=strands)
        both = torch.cat(split(hidden_states), dim=1)  # (b, 2n, c)
        mixed = attend(self.shared, both, both)  # (b, 2n, c)
        return join(*mixed.chunk(2, dim=1))  # (2b, n, c)


class TextAttention(nn.Module):
    """Plain cross-attention to the text, each domain alone: what blocks without SSM keep."""

    def __init__(self, attention: Any, layer: int) -> None:
        super().__init__()
        self.shared = attention
        self.layer = layer

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c), (2b, t, k) -> (2b, n, c)."""
        if strands.watched is not None:
            q = heads_of(self.shared, self.shared.to_q(hidden_states))  # (2b, a, n, d)
            k = heads_of(self.shared, self.shared.to_k(encoder_hidden_states))  # (2b, a, t, d)
            image, annotation = split((q @ k.transpose(-1, -2) * self.shared.scale).softmax(dim=-1))
            strands.watch(self.layer, image=image, annotation=annotation)
        if strands.recording:
            return attend(self.shared, hidden_states, encoder_hidden_states)
        text, _same = split(encoder_hidden_states)  # (b, t, k); both domains have one text
        q = heads_of(self.shared, self.shared.to_q(hidden_states))  # (2b, a, n, d)
        k, v = (heads_of(self.shared, f(text)) for f in (self.shared.to_k, self.shared.to_v))  # (b, a, t, d)
        return project_out(self.shared, F.scaled_dot_product_attention(q, join(k, k), join(v, v)))
