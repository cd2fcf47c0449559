"""From a configuration to the parts of a new model: network, autoencoder, text encoder, scheduler (section IV-B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import prompt, vocabulary
from dhdiff_ray.model.latents import HaarTransform, to_tensor
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.text import small_text_encoder, word_tokenizer
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.records import GOOD, Sample
from dhdiff_ray.training.step import Objective

TIMESTEPS = 1000


@dataclass(frozen=True)
class Parts:
    """What a pipeline is made of."""

    objective: Objective
    vae: HaarTransform
    tokenizer: Any

    def pipeline(self) -> DHDiffPipeline:
        """The sampler over these weights, with stochastic DPM-Solver++ as scheduler."""
        trained: Any = self.objective.scheduler.config
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=trained.num_train_timesteps,
            beta_start=trained.beta_start,
            beta_end=trained.beta_end,
            beta_schedule=trained.beta_schedule,
            prediction_type=trained.prediction_type,
            algorithm_type="sde-dpmsolver++",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=False,
        )
        return DHDiffPipeline(
            unet=self.objective.unet,
            vae=self.vae,
            text_encoder=self.objective.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=scheduler,
        )


def build(config: Config, samples: Sequence[Sample], images: np.ndarray) -> Parts:
    """A new model with weights drawn from the run's seed.

    Args:
        config: the run's configuration.
        samples: the training images of one category; their prompts make the vocabulary.
        images: uint8 (n, h, w, 3), which the latents are scaled by.
    """
    names = sorted({(s.category, s.defect) for s in samples})
    words = vocabulary(names)
    longest = max(len(prompt(category, defect).split()) for c, d in names for category, defect in ((c, d), (c, GOOD)))
    anomalies = [i for i, s in enumerate(samples) if not s.is_good]
    pictures = to_tensor(images[anomalies])
    m, t = config.model, config.train
    side, step = t.window or config.data.resolution, 2 ** (m.haar_levels + len(m.channels) - 1)
    if side % step or side > config.data.resolution:
        raise ValueError(
            f"the network works on {side} pixels a side: it must be a multiple of {step} and at most data.resolution = "
            f"{config.data.resolution}; set train.window (0 is the whole image)"
        )
    torch.manual_seed(config.run.seed)
    vae = HaarTransform.fitted(pictures, m.haar_levels)
    tokenizer = word_tokenizer(words, length=longest + 2)
    text_encoder = small_text_encoder(tokenizer, m.text_width, m.text_layers)
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in m.attention_blocks]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(m.attention_blocks)]
    unet = DHDiffUNet(
        backbone_config={
            "sample_size": config.data.resolution // vae.factor,
            "in_channels": vae.channels,
            "out_channels": vae.channels,
            "block_out_channels": list(m.channels),
            "layers_per_block": m.layers_per_block,
            "down_block_types": down,
            "up_block_types": up,
            "cross_attention_dim": m.text_width,
            "attention_head_dim": m.heads,
            "norm_num_groups": 8,
        },
        dda_encoder=m.dda_encoder if m.dda else (),
        dda_decoder=m.dda_decoder if m.dda else (),
        ssm_encoder=m.ssm_encoder if m.ssm else (),
        ssm_decoder=m.ssm_decoder if m.ssm else (),
        plain_attention=m.plain_attention,
        merge=m.merge,
        eta_start=m.eta_start,
    )
    scheduler = DDPMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="squaredcos_cap_v2" if t.noise_schedule == "cosine" else "scaled_linear",
        prediction_type="v_prediction" if t.prediction == "v" else "epsilon",
    )
    return Parts(Objective(unet, text_encoder, vae, scheduler, config), vae, tokenizer)
