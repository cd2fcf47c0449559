"""The Siamese reference encoder tau_theta and the zero convolution zeta_omega of Eq. 4, section III-C.

tau_theta is the backbone's own encoder run on the reference latent (Siamese, shared weights), or a trainable copy of it
as ControlNet has; every self-attention layer it passes keeps its input as F^R. Decided: the decoder, which tau has none
of, uses the encoder's feature of the same resolution.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dhdiff_ray.model.domains import Strands, zero_init

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class ZeroConv(nn.Module):
    """zeta_omega: a 1 x 1 convolution over tokens, zero at the start (ControlNet).

    Args:
        channels: of a token.
        gain: what the output is multiplied by. Adam's steps do not depend on the gradient's size, so this is the
            learning rate of zeta times the gain (equalised learning rate, Karras et al. 2018).
    """

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.conv = zero_init(nn.Linear(channels, channels))
        self.gain = gain

    def forward(self, f_reference: Tensor) -> Tensor:
        """(b, n, c) -> (b, n, c)."""
        return self.gain * self.conv(f_reference)


class EncoderCopy(nn.Module):
    """A trainable copy of the backbone's encoder, for ``reference_encoder="copy"``."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.conv_in = deepcopy(backbone.conv_in)
        self.down_blocks = deepcopy(backbone.down_blocks)
        self.mid_block = deepcopy(backbone.mid_block)


class ReferenceEncoder:
    """tau_theta: owns no parameters, borrows the backbone's encoder or its copy."""

    def __init__(self, encoder: UNet2DConditionModel | EncoderCopy) -> None:
        self.encoder = encoder

    def __call__(self, latents: Tensor, embedding: Tensor, text: Tensor) -> dict[int, Tensor]:
        """Reference latents (b, c, h, w), time embedding (b, e), text (b, t, k) -> F^R by attention layer."""
        strands = Strands(aspect=latents.shape[-2] / latents.shape[-1], recording=True)
        run_encoder(self.encoder, self.encoder.conv_in(latents), embedding, text, strands)
        return strands.references


def run_encoder(
    backbone: Any, hidden: Tensor, embedding: Tensor, text: Tensor, strands: Strands, merges=None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Down blocks and the mid block, with a merge after each if given.

    Returns the mid block's output and the skip connections, in the order they were made.
    """
    merges = iter(merges or ())

    def merged(x: Tensor) -> Tensor:
        merge = next(merges, None)
        return x if merge is None else merge(x)

    hidden = merged(hidden)
    skips = (hidden,)
    context = {"encoder_hidden_states": text, "cross_attention_kwargs": {"strands": strands}}
    for block in backbone.down_blocks:
        extra = context if getattr(block, "has_cross_attention", False) else {}
        hidden, made = block(hidden, embedding, **extra)
        hidden = merged(hidden)
        skips += (*made[:-1], hidden)
    hidden = merged(backbone.mid_block(hidden, embedding, **context))
    return hidden, skips
