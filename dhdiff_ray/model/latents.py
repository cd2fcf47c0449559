"""Images and masks as latents, section IV-B: a frozen autoencoder, or a fixed Haar transform at tiny size.

Decided: a mask is a 3-channel image in [-1, 1]; it is read back as the channel mean, threshold 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from dhdiff_ray.model.taef2 import TinyAutoencoder


def encode(vae: Autoencoder, images: Tensor) -> Tensor:
    """Images (b, 3, h, w) in [-1, 1] -> scaled latents (b, c, h', w').

    Decided: of Stable Diffusion's autoencoder the mode of the posterior, so that an image has one latent.
    """
    if isinstance(vae, AutoencoderKL):
        posterior: Any = vae.encode(images.to(vae.dtype))
        return posterior.latent_dist.mode() * vae.config["scaling_factor"]
    return vae.encode(images)


def decode(vae: Autoencoder, latents: Tensor) -> Tensor:
    """Scaled latents (b, c, h', w') -> images (b, 3, h, w), about [-1, 1]."""
    if isinstance(vae, AutoencoderKL):
        decoded: Any = vae.decode((latents / vae.config["scaling_factor"]).to(vae.dtype))
        return decoded.sample
    return vae.decode(latents)


def latent_shape(vae: Autoencoder) -> tuple[int, int]:
    """Channels of a latent, and pixels per latent position along a side."""
    if isinstance(vae, AutoencoderKL):
        return vae.config["latent_channels"], 2 ** (len(vae.config["block_out_channels"]) - 1)
    return vae.channels, vae.factor


class HaarTransform(ModelMixin, ConfigMixin):
    """A lossless, fixed transform in place of a learned autoencoder: each level halves the side, 4 x the channels.

    Each subband is multiplied by its own scale, as Stable Diffusion's latents are by ``scaling_factor``: details are
    some ten times smaller than means, and unscaled they drown in the noise until the very last steps.
    """

    config: Any

    @register_to_config
    def __init__(self, levels: int = 1, scales: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.register_buffer("anchor", torch.zeros(1))  # gives the module a dtype and a file

    @classmethod
    def fitted(cls, pictures: Tensor, levels: int, whitening: float = 0.5) -> HaarTransform:
        """The transform for pictures (b, 3, h, w): means get a standard deviation of 0.8, details some share of it.

        ``whitening`` is that share's exponent: 0 leaves details as small as they are, 1 makes all subbands alike.
        """
        plain = cls(levels).encode(pictures).unflatten(1, (4**levels, 3))  # (b, bands, 3, h, w)
        spread = plain.std(dim=(0, 2, 3, 4)).clamp(min=1e-3)  # (bands,)
        scales = 0.8 / spread[0] * (spread[0] / spread) ** whitening
        return cls(levels, tuple(scales.tolist()))

    def _scale(self, like: Tensor) -> Tensor:
        scales = self.config.scales or (1.0,) * 4**self.config.levels
        return torch.tensor(scales, dtype=like.dtype, device=like.device).repeat_interleave(3)[:, None, None]

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return 3 * 4**self.config.levels

    @property
    def factor(self) -> int:
        """Pixels per latent position along a side."""
        return 2**self.config.levels

    def encode(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, channels, h / factor, w / factor)."""
        for _ in range(self.config.levels):
            images = haar(images)
        return images * self._scale(images)

    def decode(self, latents: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, 3, h * factor, w * factor)."""
        latents = latents / self._scale(latents)
        for _ in range(self.config.levels):
            latents = unhaar(latents)
        return latents


Autoencoder = AutoencoderKL | TinyAutoencoder | HaarTransform


def haar(x: Tensor) -> Tensor:
    """One level: (b, c, h, w) -> (b, 4c, h / 2, w / 2); the mean first, then the three details."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 4


def unhaar(y: Tensor) -> Tensor:
    """Undo :func:`haar`."""
    mean, h, v, q = y.chunk(4, dim=1)
    rows = [torch.stack([mean + h + v + q, mean - h + v - q], dim=-1).flatten(-2)]
    rows += [torch.stack([mean + h - v - q, mean - h - v + q], dim=-1).flatten(-2)]
    return torch.stack(rows, dim=-2).flatten(-3, -2)


def mask_to_image(mask: Tensor) -> Tensor:
    """Mask (b, 1, h, w) in [0, 1] -> image (b, 3, h, w) in [-1, 1]."""
    return (mask * 2 - 1).expand(-1, 3, -1, -1)


def image_to_mask(image: Tensor) -> Tensor:
    """Image (b, 3, h, w) -> float mask (b, 1, h, w) in [0, 1]; 0.5 is the threshold."""
    return (image.mean(1, keepdim=True) / 2 + 0.5).clamp(0, 1)


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (b, h, w, 3) -> float (b, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_mask(masks: np.ndarray) -> Tensor:
    """uint8 (b, h, w) of 0 and 255 -> float (b, 1, h, w) of 0 and 1."""
    return (torch.from_numpy(np.ascontiguousarray(masks))[:, None] > 0).float()
