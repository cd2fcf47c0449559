"""Latents and text embeddings computed once and kept in the run: ``cache/<category>/latents-<key>.safetensors``.

Not in the paper; a frozen autoencoder gives the same latent in every epoch, and on a large backbone encoding costs a
good part of a step. Only where whole images are trained on: a window at a random place has a latent of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.regions import reference_image
from dhdiff_ray.model.latents import HaarTransform, encode, mask_to_image, to_mask, to_tensor
from dhdiff_ray.model.taef2 import weights_digest
from dhdiff_ray.storage import RunFolder
from dhdiff_ray.training.batches import BatchSource, Drawn, mirrored

BATCH = 16
"""Images encoded at once."""
UNFLIPPED = ((False, False),)
FLIPPED = ((False, False), (True, False), (False, True), (True, True))


class LatentCache:
    """What training needs of each image: latents by flips, text embeddings where the text encoder is frozen."""

    def __init__(self, tables: dict[str, Tensor], flips: bool) -> None:
        self.tables = tables
        self.variants = FLIPPED if flips else UNFLIPPED

    def latents(self, rows: Sequence[Drawn]) -> Tensor:
        """(3, b, c, h', w'): image, mask, reference."""
        t = self.tables
        at = [(self.variants.index(row.flips), row.index) for row in rows]
        image, mask = (torch.stack([t[name][v, i] for v, i in at]) for name in ("image", "mask"))
        dropped = [row.reference == "none" for row in rows]
        shown = [t["blank"] if d else t["reference"][v, i] for d, (v, i) in zip(dropped, at, strict=True)]
        return torch.stack([image, mask, torch.stack(shown)])

    def text(self, rows: Sequence[Drawn]) -> Tensor | None:
        """(b, t, k), or None where the text encoder is trained."""
        if "text" not in self.tables:
            return None
        t = self.tables
        return torch.stack([t["empty_text"] if row.text_dropped else t["text"][row.index] for row in rows])


def can_cache(config: Config, vae: Any) -> bool:
    """Whether every image has one latent per flip, and computing it costs anything."""
    return not isinstance(vae, HaarTransform) and config.train.window in (0, config.data.resolution)


def latent_cache(
    source: BatchSource,
    config: Config,
    vae: Any,
    text_encoder: Any | None,
    folder: RunFolder | None = None,
    category: str = "",
    device: torch.device | str = "cpu",
) -> LatentCache:
    """The cache of a category's training images: read from the run, or computed and written there.

    Args:
        source: holds images, masks and tokens.
        config: what the reference shows, and whether images are mirrored.
        vae: the frozen autoencoder.
        text_encoder: the frozen text encoder, or None where it is trained.
        folder: the run; None keeps the cache in memory alone.
        category: names the file.
        device: where to compute.
    """
    name = f"cache/{category}/latents-{_key(source, config, vae, text_encoder)}.safetensors"
    if folder is not None and folder.exists(name):
        return LatentCache(load(folder.read_bytes(name)), config.train.flips)
    tables = _computed(source, config, vae, text_encoder, device)
    if folder is not None:
        folder.write_bytes(name, save(tables))
    return LatentCache(tables, config.train.flips)


@torch.no_grad()
def _computed(
    source: BatchSource, config: Config, vae: Any, text_encoder: Any | None, device: torch.device | str
) -> dict[str, Tensor]:
    def encoded(pixels: Tensor) -> Tensor:
        parts = [encode(vae, pixels[i : i + BATCH].to(device)).float().cpu() for i in range(0, len(pixels), BATCH)]
        return torch.cat(parts)

    tables: dict[str, list[Tensor]] = {"image": [], "mask": [], "reference": []}
    for flips in FLIPPED if config.train.flips else UNFLIPPED:
        images, masks, raw = (
            np.stack([mirrored(a, flips) for a in arrays]) for arrays in (source.images, source.masks, source.raw_masks)
        )
        shown = [reference_image(i, r, config.train.reference) for i, r in zip(images, raw, strict=True)]
        tables["image"].append(encoded(to_tensor(images)))
        tables["mask"].append(encoded(mask_to_image(to_mask(masks))))
        tables["reference"].append(encoded(to_tensor(np.stack(shown))))
    blank = reference_image(source.images[0], source.raw_masks[0], "none")
    found = {key: torch.stack(value) for key, value in tables.items()} | {"blank": encoded(to_tensor(blank[None]))[0]}
    if text_encoder is not None:
        tokens = torch.cat([source.tokens, source.empty_tokens[None]])
        unique, where = torch.unique(tokens, dim=0, return_inverse=True)
        states = text_encoder(unique.to(device)).last_hidden_state.float().cpu()[where]
        found |= {"text": states[:-1].clone(), "empty_text": states[-1].clone()}
    return {key: value.contiguous() for key, value in found.items()}


def _key(source: BatchSource, config: Config, vae: Any, text_encoder: Any | None) -> str:
    """Hash of everything the cache depends on."""
    digest = hashlib.sha256()
    for array in (source.images, source.masks, source.raw_masks):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(source.tokens.numpy().tobytes())
    text = "" if text_encoder is None else weights_digest(text_encoder)
    digest.update(json.dumps([config.train.reference, config.train.flips, weights_digest(vae), text]).encode())
    return digest.hexdigest()[:16]
