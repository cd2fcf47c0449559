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
from dhdiff_ray.training.examples import Examples, Row, mirrored

BATCH = 16
"""Images encoded at once; on a CPU it is one, which fits its caches (.5 s an image instead of .7)."""
UNFLIPPED = ((False, False),)
FLIPPED = ((False, False), (True, False), (False, True), (True, True))


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
        t, variant = self.tables, self.variants.index(row.flips)
        whole = [t["image"][variant, row.index], t["mask"][variant, row.index]]
        whole.append(t["blank"] if row.reference == "none" else t["reference"][variant, row.index])
        spans = []
        for window, side, flipped in zip(row.window, whole[0].shape[1:], (row.flips[1], row.flips[0]), strict=True):
            first, last = window.start // self.factor, window.stop // self.factor
            spans.append(slice(side - last, side - first) if flipped else slice(first, last))
        return [z[:, spans[0], spans[1]] for z in whole]

    def text(self, rows: Sequence[Row]) -> Tensor:
        """(b, t, k)."""
        t = self.tables
        return torch.stack([t["empty_text"] if row.text_dropped else t["text"][row.index] for row in rows])


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
    variants = FLIPPED if config.flips else UNFLIPPED
    total, done = 3 * len(variants) * len(examples.images), 0
    batch = 1 if torch.device(device).type == "cpu" else BATCH

    def encoded(pixels: Tensor) -> Tensor:
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
        images, masks, raw = (
            np.stack([mirrored(a, flips) for a in arrays])
            for arrays in (examples.images, examples.masks, examples.raw_masks)
        )
        shown = [reference_image(i, r, config.reference) for i, r in zip(images, raw, strict=True)]
        pictures = (to_tensor(images), mask_to_image(to_mask(masks)), to_tensor(np.stack(shown)))
        for table, of_one in zip(tables.values(), pictures, strict=True):
            table.append(encoded(of_one))
            done += len(of_one)
    blank = reference_image(examples.images[0], examples.raw_masks[0], "none")
    stacked = {key: torch.stack(value) for key, value in tables.items()} | {"blank": encoded(to_tensor(blank[None]))[0]}
    tokens = torch.cat([examples.tokens, examples.empty_tokens[None]])
    unique, where = torch.unique(tokens, dim=0, return_inverse=True)
    states = text_encoder(unique.to(device)).last_hidden_state.float().cpu()[where]
    stacked |= {"text": states[:-1].clone(), "empty_text": states[-1].clone()}
    return {key: value.contiguous() for key, value in stacked.items()}


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
