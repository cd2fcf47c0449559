"""A Stable Diffusion 1.x to start from: loaded with diffusers' own ``from_pretrained`` (section IV-B).

A folder in diffusers' layout, or a hub id that lies in the cache. Decided: safetensors only; no download unless the
environment allows one (``HF_HUB_OFFLINE=0``), since a worker in a cluster has none to spare.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Backbone:
    """The parts of a Stable Diffusion; autoencoder and text encoder are frozen."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Any
    scheduler: DDPMScheduler


def load_backbone(name: str) -> Backbone:
    """Load the parts by name.

    Args:
        name: a folder in diffusers' layout, or a hub id such as ``stable-diffusion-v1-5/stable-diffusion-v1-5``.

    Raises:
        ValueError: a part is missing or is not what Stable Diffusion 1.x has.
    """
    local = os.environ.get("HF_HUB_OFFLINE", "1") != "0"
    kinds: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "scheduler": DDPMScheduler,
    }
    parts: dict[str, Any] = {}
    for part, kind in kinds.items():
        extra = {"use_safetensors": True} if part in ("unet", "vae", "text_encoder") else {}
        try:
            parts[part] = kind.from_pretrained(name, subfolder=part, local_files_only=local, **extra)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"no Stable Diffusion {part} in {name!r}: {reason}. Give model.backbone a folder with unet, vae, "
                "text_encoder, tokenizer and scheduler (safetensors), or a hub id that lies in the cache; "
                "HF_HUB_OFFLINE=0 lets it be fetched"
            ) from None
    for frozen in ("vae", "text_encoder"):
        parts[frozen].eval().requires_grad_(False)
    words, embedded = len(parts["tokenizer"]), parts["text_encoder"].config.vocab_size
    if words != embedded:  # without its files a tokenizer loads empty
        raise ValueError(
            f"no Stable Diffusion tokenizer in {name!r} that fits: it has {words} tokens, the text encoder {embedded}. "
            "Give model.backbone a folder whose tokenizer has vocab.json and merges.txt"
        )
    width, wanted = parts["text_encoder"].config.hidden_size, parts["unet"].config["cross_attention_dim"]
    if width != wanted:
        raise ValueError(
            f"{name!r}: its text encoder is {width} wide and its U-Net wants {wanted}; the parts do not fit"
        )
    return Backbone(**parts)
