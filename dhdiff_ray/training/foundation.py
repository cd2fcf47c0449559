"""A foundation as the start of a training: what it was trained with must be what is asked for (not in the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import DDPMScheduler
from transformers import CLIPTextModel

from dhdiff_ray.config import Config
from dhdiff_ray.model.latents import Autoencoder, HaarTransform
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.run.foundation import Foundation

SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
"""What two schedulers share: a sampler's is made from the one of training, and the other way round."""


@dataclass(frozen=True)
class Known:
    """What a foundation brings, with a scheduler to train by."""

    unet: DHDiffUNet
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: Any
    scheduler: DDPMScheduler


def open_foundation(foundation: Foundation, config: Config, switches: Mapping[str, Any]) -> Known:
    """Load a foundation, and refuse one of another kind than the configuration asks for.

    Args:
        foundation: where it lies.
        config: the run's configuration.
        switches: the network's, as ``DHDiffUNet`` takes them.

    Raises:
        ValueError: naming what differs and what to type.
    """
    pipeline = DHDiffPipeline.from_pretrained(foundation.folder)
    unet: DHDiffUNet = pipeline.unet
    asked = {**_network(config), **{f"model.{name}": value for name, value in switches.items()}}
    has = {**_network_of(pipeline), **{f"model.{name}": unet.config[name] for name in switches}}
    differing = [name for name, value in asked.items() if _plain(has[name]) != _plain(value)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{foundation.name} was trained with {name} = {_plain(has[name])!r}, and {_plain(asked[name])!r} is asked "
            f'for: leave it as the foundation has it, or train from scratch with --set model.backbone=""'
        )
    scheduler = DDPMScheduler(**{name: pipeline.scheduler.config[name] for name in SCHEDULE})
    unet.train().requires_grad_(True)
    return Known(unet.float(), pipeline.vae.float(), pipeline.text_encoder.float(), pipeline.tokenizer, scheduler)


def whole_pipeline(foundation: Foundation) -> DHDiffPipeline:
    """A foundation in single precision, which adapters are trained in, with nothing to be trained."""
    pipeline = DHDiffPipeline.from_pretrained(foundation.folder)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float().requires_grad_(False)
    return pipeline


def _network(config: Config) -> dict[str, Any]:
    m, t = config.model, config.train
    textured = t.noise == "texture"
    return {
        "model.autoencoder": m.autoencoder,
        **({"model.haar_levels": m.haar_levels} if m.autoencoder == "haar" else {}),
        "model.channels": m.channels,
        "model.attention_blocks": m.attention_blocks,
        "model.layers_per_block": m.layers_per_block,
        "model.heads": m.heads,
        "model.text_width": m.text_width,
        "train.prediction": t.prediction,
        "train.noise_schedule": t.noise_schedule,
        "train.noise": t.noise,
        **({"data.resolution": config.data.resolution} if textured else {}),  # whose texture is known
    }


def _network_of(pipeline: DHDiffPipeline) -> dict[str, Any]:
    vae, schedule = pipeline.vae, pipeline.scheduler.config
    b: Any = pipeline.unet.backbone.config
    haar = isinstance(vae, HaarTransform)
    return {
        "model.autoencoder": "haar" if haar else "taef2",
        "model.haar_levels": vae.config.levels if haar else 0,
        "model.channels": b.block_out_channels,
        "model.attention_blocks": ["CrossAttn" in kind for kind in b.down_block_types],
        "model.layers_per_block": b.layers_per_block,
        "model.heads": b.attention_head_dim,
        "model.text_width": b.cross_attention_dim,
        "train.prediction": "v" if schedule["prediction_type"] == "v_prediction" else "epsilon",
        "train.noise_schedule": "cosine" if schedule["beta_schedule"] == "squaredcos_cap_v2" else "scaled_linear",
        "train.noise": "white" if pipeline.unet.texture is None else "texture",
        "data.resolution": b.sample_size * vae.factor,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
