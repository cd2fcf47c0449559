"""Latents and text embeddings computed once and kept in the run: ``cache/<category>/latents-<key>.safetensors``.

Not in the paper; a frozen autoencoder gives the same latent in every epoch, and encoding costs a good part of a step.
Decided: whole images are encoded and windows are cut from their latents, at places the autoencoder's grid allows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import CLIPTextModel

from dhdiff_ray.config import TrainConfig
from dhdiff_ray.data.regions import reference_image
from dhdiff_ray.model.latents import Autoencoder, encode, latent_shape, mask_to_image, to_mask, to_tensor
from dhdiff_ray.model.taef2 import weights_digest
from dhdiff_ray.run.damage import promise
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.training.cuts import FLIPPED, UNFLIPPED, Row, latent_window, mirrored
from dhdiff_ray.training.examples import Examples

BATCH = 16
"""Images encoded at once; on a CPU it is one, which fits its caches (.5 s an image instead of .7)."""


class LatentCache:
    """What training needs of each image: latents by flips, text embeddings."""

    def __init__(self, tables: dict[str, Tensor], flips: bool, factor: int) -> None:
        self.tables = tables
        self.factor = factor
        self.variants = FLIPPED if flips else UNFLIPPED

    def latents(self, rows: Sequence[Row]) -> Tensor:
        """(3, b, c, h', w'): image, mask, reference."""
        cut = [self._one(row) for row in rows]
        return torch.stack([torch.stack(column) for column in zip(*cut, strict=True)])

    def _one(self, row: Row) -> list[Tensor]:
        t, at = self.tables, (self.variants.index(row.flips), row.index)
        whole = [t["image"][at], t["mask"][at], t["blank"] if row.reference == "none" else t["reference"][at]]
        down, across = latent_window(row, (whole[0].shape[1], whole[0].shape[2]), self.factor)
        return [z[:, down, across] for z in whole]

    def text(self, words: np.ndarray) -> Tensor:
        """(b, t, k), by image; -1 for the empty prompt."""
        t = self.tables
        return torch.stack([t["empty_text"] if word < 0 else t["text"][word] for word in words])


def latent_cache(
    examples: Examples,
    config: TrainConfig,
    vae: Autoencoder,
    text_encoder: CLIPTextModel,
    folder: RunFolder | None = None,
    category: str = "",
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> LatentCache:
    """The cache of a category's training images: read from the run, or computed and written there.

    The frozen networks encode; the rest of the arguments are those of ``build_source``.
    """
    name = f"cache/{category}/latents-{_key(examples, config, vae, text_encoder)}.safetensors"
    tables = None if folder is None else _kept(folder, name)
    if tables is None:
        tables = _computed(examples, config, vae, text_encoder, device, on_progress or (lambda *_: None))
        if folder is not None:
            data = save(tables)
            folder.write_json(f"{name}.json", promise(data))
            folder.write_bytes(name, data)
    return LatentCache(tables, config.flips, latent_shape(vae)[1])


def _kept(folder: RunFolder, name: str) -> dict[str, Tensor] | None:
    """What was computed before; None where that was not, or is damaged."""
    if not folder.exists(name):
        return None
    data, told = folder.read_bytes(name), folder.readable(f"{name}.json")
    if told and told != promise(data):
        return None
    try:
        return load(data)
    except SafetensorError:
        return None


@torch.no_grad()
def _computed(
    examples: Examples,
    config: TrainConfig,
    vae: Autoencoder,
    text_encoder: CLIPTextModel,
    device: torch.device | str,
    on_progress: Callable[[int, int], None],
) -> dict[str, Tensor]:
    tables = encoded(examples.images, examples.masks, examples.raw_masks, config, vae, device, on_progress)
    tokens = torch.cat([examples.tokens, examples.empty_tokens[None]])
    unique, where = torch.unique(tokens, dim=0, return_inverse=True)
    states = text_encoder(unique.to(device)).last_hidden_state.float().cpu()[where]
    tables |= {"text": states[:-1].clone(), "empty_text": states[-1].clone()}
    return {key: value.contiguous() for key, value in tables.items()}


@torch.no_grad()
def encoded(
    images: np.ndarray,
    masks: np.ndarray,
    raw_masks: np.ndarray,
    config: TrainConfig,
    vae: Autoencoder,
    device: torch.device | str,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Tensor]:
    """Latents of whole pictures: ``image``, ``mask`` and ``reference`` (variants, n, c, h', w'), ``blank`` (c, h', w').

    Args:
        images: uint8 (n, h, w, 3).
        masks: uint8 (n, h, w).
        raw_masks: uint8 (n, h, w).
        config: says what a reference shows and whether pictures are mirrored.
        vae: encodes.
        device: where it lies.
        on_progress: called with the pictures encoded and their number.
    """
    variants = FLIPPED if config.flips else UNFLIPPED
    total, done = 3 * len(variants) * len(images), 0
    batch = 1 if torch.device(device).type == "cpu" else BATCH

    def of(pixels: Tensor) -> Tensor:
        # Normal images share one mask and one reference: each picture is encoded once.
        seen: dict[bytes, int] = {}
        where = [seen.setdefault(p.numpy().tobytes(), len(seen)) for p in pixels]
        unique = pixels[[where.index(i) for i in range(len(seen))]]
        parts: list[Tensor] = []
        for some in unique.split(batch):
            parts.append(encode(vae, some.to(device)).float().cpu())
            share = sum(map(len, parts)) / len(unique)
            on_progress(min(total, done + round(share * len(pixels))), total)
        return torch.cat(parts)[where]

    tables: dict[str, list[Tensor]] = {"image": [], "mask": [], "reference": []}
    for flips in variants:
        image, mask, raw = (np.stack([mirrored(a, flips) for a in arrays]) for arrays in (images, masks, raw_masks))
        shown = [reference_image(i, r, config.reference) for i, r in zip(image, raw, strict=True)]
        pictures = (to_tensor(image), mask_to_image(to_mask(mask)), to_tensor(np.stack(shown)))
        for table, of_one in zip(tables.values(), pictures, strict=True):
            table.append(of(of_one))
            done += len(of_one)
    blank = reference_image(images[0], raw_masks[0], "none")
    return {key: torch.stack(value) for key, value in tables.items()} | {"blank": of(to_tensor(blank[None]))[0]}


def _key(examples: Examples, config: TrainConfig, vae: Autoencoder, text_encoder: CLIPTextModel) -> str:
    """Hash of everything the cache depends on."""
    digest = hashlib.sha256()
    for array in (examples.images, examples.masks, examples.raw_masks):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(examples.tokens.numpy().tobytes())
    whitened = getattr(vae, "whiten", None) is not None
    facts = [config.reference, config.flips, weights_digest(vae), whitened, weights_digest(text_encoder)]
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]
