"""A small pretrained autoencoder for real images without Stable Diffusion: TAEF2 (madebyollin/taesd, MIT).

Not in the paper. 256 x 256 x 3 pixels become 32 x 32 x 32 latents of standard deviation about 0.8. The two weight files
are given by path and loaded as plain tensors; nothing of them ships with this package.

Decided: latents are whitened by the training images' own statistics, as Stable Diffusion's are scaled to unit variance:
one product's latents differ less than the world's, some directions by much less, and drown in the noise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

WIDTH = 64
LEAST_VARIANCE = 1e-4
"""Directions in which latents differ less are not blown up any further; images may all be one colour."""
ENCODER, DECODER = "taef2_encoder.pth", "taef2_decoder.pth"


class TinyAutoencoder(ModelMixin, ConfigMixin):
    """TAEF2's encoder and decoder; images in [-1, 1], 8 pixels per latent position."""

    config: Any
    factor = 8

    @register_to_config
    def __init__(self, channels: int = 32, whitened: bool = False) -> None:
        super().__init__()
        if whitened:
            self.register_buffer("mean", torch.zeros(channels, 1, 1))
            self.register_buffer("whiten", torch.eye(channels))
            self.register_buffer("unwhiten", torch.eye(channels))
        halve = lambda: nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)  # noqa: E731
        grow = lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]  # noqa: E731
        three, pooled = lambda: [Block() for _ in range(3)], lambda: [Block(True) for _ in range(3)]
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1), Block(), halve(), *three(), halve(), *three(), halve(), *pooled(),
            nn.Conv2d(WIDTH, channels, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            SoftClamp(), nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU(), *pooled(), *grow(), *three(), *grow(),
            *three(), *grow(), Block(), nn.Conv2d(WIDTH, 3, 3, padding=1),
        )  # fmt: skip

    @classmethod
    def from_files(cls, folder: str | Path) -> TinyAutoencoder:
        """Load the two published files.

        Args:
            folder: holds ``taef2_encoder.pth`` and ``taef2_decoder.pth``.

        Raises:
            ValueError: a file is missing or holds another network; the message says where to get it.
        """
        model = cls(whitened=True)
        for part, name in ((model.encoder, ENCODER), (model.decoder, DECODER)):
            path = Path(folder).expanduser() / name
            if not path.is_file():
                raise ValueError(
                    f"no {name} in {folder or 'model.autoencoder_weights, which is empty'}; get it from "
                    "https://github.com/madebyollin/taesd and pass --set model.autoencoder_weights=FOLDER"
                )
            try:
                weights = torch.load(path, map_location="cpu", weights_only=True)
                part.load_state_dict({key: value.float() for key, value in weights.items()})
            except Exception as error:  # noqa: BLE001  a pickle with code, a torn file, another network: one answer
                raise ValueError(f"{path} is not TAEF2's {name}: {type(error).__name__}: {error}") from None
        return model.eval().requires_grad_(False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> TinyAutoencoder:
        """From now on latents have the mean 0 over these images, and within an image no correlation and variance 1.

        Zero-phase whitening: each channel stays as near to what it was as it can.

        Args:
            images: (n, 3, h, w) in [-1, 1].
        """
        z = torch.cat([self.encoder((one / 2 + 0.5).to(self.dtype)) for one in images.split(1)]).double()
        within = (z - z.mean((2, 3), keepdim=True)).transpose(0, 1).flatten(1)  # (c, n h w)
        values, vectors = torch.linalg.eigh(torch.cov(within))
        root = values.clamp(min=LEAST_VARIANCE).sqrt()
        self.mean.copy_(z.mean((0, 2, 3))[:, None, None])
        self.whiten.copy_(vectors / root @ vectors.T)
        self.unwhiten.copy_(vectors * root @ vectors.T)
        return self

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.config.channels

    def encode(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, channels, h / 8, w / 8)."""
        latents = self.encoder((images / 2 + 0.5).to(self.dtype))
        if self.config.whitened:
            latents = torch.einsum("ij,bjhw->bihw", self.whiten, latents - self.mean)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, 3, 8 h, 8 w), about [-1, 1]."""
        latents = latents.to(self.dtype)
        if self.config.whitened:
            latents = torch.einsum("ij,bjhw->bihw", self.unwhiten, latents) + self.mean
        return self.decoder(latents) * 2 - 1


class Block(nn.Module):
    """Residual block of three convolutions; a pooled one first adds a wide, normalised view of its input."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        self.pool = None
        if pooled:
            wide = 4 * WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(b, 64, h, w) -> (b, 64, h, w)."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    """3 tanh(z / 3): keeps latents within the range the decoder knows."""

    def forward(self, z: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        return 3 * torch.tanh(z / 3)


def weights_digest(module: nn.Module) -> str:
    """Hash of a module's weights, to name what latents were made with.

    Buffers do not count: what they hold is fitted to the images, whose last bits depend on the number of threads.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.named_parameters()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
