"""From a configuration to the parts of a model: network, autoencoder, text encoder, scheduler (section IV-B).

From scratch, from a foundation of ours, or on a Stable Diffusion 1.x. Autoencoder and text encoder stay frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch.nn import functional
from transformers import CLIPTextModel

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import prompt, vocabulary
from dhdiff_ray.model.backbone import load_backbone
from dhdiff_ray.model.domains import join, split, zero_init
from dhdiff_ray.model.latents import Autoencoder, HaarTransform, encode, latent_shape, mask_to_image, to_mask, to_tensor
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.model.text import small_text_encoder, with_words, word_tokenizer
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.records import GOOD, Sample
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.foundation import Foundation, foundation_of
from dhdiff_ray.training.adapt import EVERY, PROJECTIONS, train_adapters
from dhdiff_ray.training.batches import BatchSource
from dhdiff_ray.training.cache import latent_cache
from dhdiff_ray.training.examples import Examples
from dhdiff_ray.training.foundation import SCHEDULE, open_foundation
from dhdiff_ray.training.step import Objective

TIMESTEPS = 1000
SWITCHES = ("plain_attention", "merge", "eta_start", "reference_encoder", "zero_conv_gain", "dda_start")
FITTED = 64
"""Images, evenly spaced, that latents are whitened by and the texture is fitted to; they are encoded at each start."""


@dataclass(frozen=True)
class Parts:
    """What a pipeline is made of."""

    objective: Objective
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: Any
    defaults: dict[str, Any]
    """How the pipeline is called where a caller does not say otherwise."""
    under: Foundation | None = None
    """The model of ours that its adapters are published over; None where whole weights are."""

    def pipeline(self) -> DHDiffPipeline:
        """The sampler over these weights, with stochastic DPM-Solver++ as scheduler."""
        trained: Any = self.objective.scheduler.config
        scheduler = DPMSolverMultistepScheduler(
            **{name: trained[name] for name in SCHEDULE},
            algorithm_type="sde-dpmsolver++",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=False,
        )
        return DHDiffPipeline(
            unet=self.objective.unet,
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=scheduler,
            defaults=self.defaults,
        )


def build(config: Config, samples: Sequence[Sample], images: np.ndarray) -> Parts:
    """A new model with weights drawn from the run's seed, a pretrained backbone with what is new, or a foundation.

    Args:
        config: the run's configuration.
        samples: the training images of one category; their prompts make the vocabulary.
        images: uint8 (n, h, w, 3), which the Haar latents are scaled by.

    Raises:
        ValueError: a size the network cannot work on, or weights that are not there.
    """
    torch.manual_seed(config.run.seed)
    if (foundation := foundation_of(config)) is not None:
        parts = _adapted(config, samples, images, foundation)
    elif config.model.backbone:
        parts = _pretrained(config, samples)
    else:
        parts = _from_scratch(config, samples, images)
    unet = parts.objective.unet
    if config.train.adapt == "lora":
        train_adapters(unet, config.train.lora_rank, EVERY if parts.under else PROJECTIONS)
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return parts


def build_source(
    parts: Parts,
    config: Config,
    samples: Sequence[Sample],
    images: np.ndarray,
    masks: np.ndarray,
    *,
    folder: RunFolder | None = None,
    category: str = "",
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> BatchSource:
    """Where the batches of this model come from, with its latents cached in the run where that pays.

    Args:
        parts: the model; what is frozen of it is moved to the device.
        config: the run's configuration.
        samples: the training images of one category.
        images: uint8 (n, h, w, 3).
        masks: uint8 (n, h, w).
        folder: the run; None keeps the cache in memory alone.
        category: names the cache's file.
        device: where the engine trains.
        on_progress: called with the pictures encoded for the cache and their number.
    """
    parts.objective.frozen_to(device)
    examples, cache = Examples.of(config, samples, images, masks, parts.tokenizer), None
    if not isinstance(parts.vae, HaarTransform):  # computing a latent costs enough to keep it
        vae, text_encoder = parts.vae, parts.text_encoder
        cache = latent_cache(examples, config.train, vae, text_encoder, folder, category, device, on_progress)
    return BatchSource(config, examples, cache)


@torch.no_grad()
def fit_look(parts: Parts, source: BatchSource) -> None:
    """Fit how defects are expected to look to all real ones, where the network's noise has a texture; else nothing."""
    look, texture, vae = parts.objective.unet.look, parts.objective.unet.texture, parts.vae
    if look is None or texture is None:
        return
    examples, rows = source.examples, source.anomalies
    factor, device = latent_shape(vae)[1], look.weight.device
    change, annotations = [], []
    defects, regions = (
        functional.max_pool2d(to_mask(masks[rows]), factor) for masks in (examples.masks, examples.raw_masks)
    )
    for i, region in zip(rows, regions.split(1), strict=True):
        if source.cache is None:
            image = encode(vae, to_tensor(examples.images[i : i + 1]).to(device))
            mask = encode(vae, mask_to_image(to_mask(examples.masks[i : i + 1])).to(device))
        else:
            image, mask = (source.cache.tables[name][0, i][None].to(device) for name in ("image", "mask"))
        expected = texture.mean(join(image, image), join(region, region).to(device))
        change.append((image - split(expected)[0]).float().cpu())
        annotations.append(mask.float().cpu())
    empty = encode(vae, mask_to_image(torch.zeros_like(to_mask(examples.masks[:1]))).to(device))
    look.fit(torch.cat(change), torch.cat(annotations), defects * regions, empty[0].float().cpu())


def _from_scratch(config: Config, samples: Sequence[Sample], images: np.ndarray) -> Parts:
    m = config.model
    some = to_tensor(images[:: -(-len(images) // FITTED)])
    if m.autoencoder == "taef2":
        vae = TinyAutoencoder.from_files(m.autoencoder_weights).fit(some)
    else:
        anomalies = [i for i, s in enumerate(samples) if not s.is_good]
        vae = HaarTransform.fitted(to_tensor(images[anomalies]), m.haar_levels)
    channels, factor = latent_shape(vae)
    check_size(config, factor * 2 ** (len(m.channels) - 1))
    tokenizer = word_tokenizer(*words_of(samples))
    text_encoder = small_text_encoder(tokenizer, m.text_width, m.text_layers)
    unet = DHDiffUNet(
        backbone_config={
            "sample_size": config.data.resolution // factor,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": list(m.channels),
            "layers_per_block": m.layers_per_block,
            "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in m.attention_blocks],
            "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(m.attention_blocks)],
            "cross_attention_dim": m.text_width,
            "attention_head_dim": m.heads,
            "norm_num_groups": 8,
        },
        **switches(config),
        texture_side=3 * (config.data.resolution // factor) // 2 if config.train.noise == "texture" else 0,
    )
    t = config.train
    scheduler = DDPMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="squaredcos_cap_v2" if t.noise_schedule == "cosine" else "scaled_linear",
        prediction_type="v_prediction" if t.prediction == "v" else "epsilon",
    )
    if unet.texture is not None:
        _fit_texture(unet, vae, samples, images)
        zero_init(unet.backbone.conv_out)  # the surface without a defect
    objective = Objective(unet, text_encoder, vae, scheduler, config)
    return Parts(objective, vae, text_encoder, tokenizer, sampling_defaults(config, samples))


def _adapted(config: Config, samples: Sequence[Sample], images: np.ndarray, foundation: Foundation) -> Parts:
    """What a foundation knows, its words with this product's, and what is fitted to the product."""
    parts = open_foundation(foundation, config, switches(config))
    check_size(config, latent_shape(parts.vae)[1] * 2 ** (len(parts.unet.backbone.config.block_out_channels) - 1))
    tokenizer, text_encoder = with_words(parts.tokenizer, parts.text_encoder, *words_of(samples))
    if parts.unet.texture is not None:
        _fit_texture(parts.unet, parts.vae, samples, images)
    objective = Objective(parts.unet, text_encoder, parts.vae, parts.scheduler, config)
    under = foundation if config.train.adapt == "lora" and not config.sources else None  # a foundation is whole
    return Parts(objective, parts.vae, text_encoder, tokenizer, sampling_defaults(config, samples), under)


@torch.no_grad()
def _fit_texture(unet: DHDiffUNet, vae: Autoencoder, samples: Sequence[Sample], images: np.ndarray) -> None:
    """Fit the texture of the noise to the product's good images, which a GPU encodes where there is one."""
    good = images[[s.is_good for s in samples]] if any(s.is_good for s in samples) else images
    some = to_tensor(good[:: -(-len(good) // FITTED)])
    assert unet.texture is not None
    place = "cuda" if torch.cuda.is_available() else "cpu"
    vae.to(place)  # pyright: ignore[reportArgumentType]  diffusers' own signature
    unet.texture.fit(torch.cat([encode(vae, image.to(place)).cpu() for image in some.split(1)]))
    vae.to("cpu")  # pyright: ignore[reportArgumentType]


def words_of(samples: Sequence[Sample]) -> tuple[list[str], int]:
    """The words of all prompts of these samples, and the tokens of the longest with its start and end."""
    names = sorted({(s.category, s.defect) for s in samples})
    longest = max(len(prompt(category, defect).split()) for c, d in names for category, defect in ((c, d), (c, GOOD)))
    return vocabulary(names), longest + 2


def _pretrained(config: Config, samples: Sequence[Sample]) -> Parts:
    loaded = load_backbone(config.model.backbone)
    factor = latent_shape(loaded.vae)[1]
    check_size(config, factor * 2 ** (len(loaded.unet.config["block_out_channels"]) - 1))
    unet = DHDiffUNet.from_backbone(loaded.unet, **switches(config))
    kind = "v_prediction" if config.train.prediction == "v" else "epsilon"
    scheduler = DDPMScheduler.from_config(loaded.scheduler.config, prediction_type=kind)
    objective = Objective(unet, loaded.text_encoder, loaded.vae, scheduler, config)
    defaults = sampling_defaults(config, samples)
    return Parts(objective, loaded.vae, loaded.text_encoder, loaded.tokenizer, defaults)


def switches(config: Config) -> dict[str, Any]:
    """The network's switches, as ``DHDiffUNet`` takes them."""
    m = config.model
    return {
        "dda_encoder": m.dda_encoder if m.dda else (),
        "dda_decoder": m.dda_decoder if m.dda else (),
        "ssm_encoder": m.ssm_encoder if m.ssm else (),
        "ssm_decoder": m.ssm_decoder if m.ssm else (),
        **{name: getattr(m, name) for name in SWITCHES},
    }


def sampling_defaults(config: Config, samples: Sequence[Sample]) -> dict[str, Any]:
    """What a published pipeline knows of how it was trained and is meant to be called."""
    s, t = config.synthesize, config.train
    return {
        "category": samples[0].category,
        "prompt": prompt(samples[0].category, "{defect}"),
        "size": t.window or config.data.resolution,
        "grid": config.data.grid,
        "num_inference_steps": s.steps,
        "guidance_scale": s.guidance,
        "background": s.background,
        "fade": s.fade,
        "reference_noise": t.reference_noise,
    }


def check_size(config: Config, step: int) -> None:
    """Refuse a side that the network cannot halve often enough.

    Raises:
        ValueError: it says what fits.
    """
    side = config.train.window or config.data.resolution
    if side % step or side > config.data.resolution:
        raise ValueError(
            f"the network works on {side} pixels a side: it must be a multiple of {step} and at most data.resolution = "
            f"{config.data.resolution}; set train.window (0 is the whole image)"
        )
