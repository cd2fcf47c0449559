"""One optimisation step as a pure function, batch -> loss (Eq. 8, section IV-B)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.config import Config
from dhdiff_ray.model.domains import join
from dhdiff_ray.model.latents import mask_to_image
from dhdiff_ray.model.loss import dh_loss
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.training.batches import Batch


class Objective(nn.Module):
    """Everything that is trained, and how a batch becomes a loss."""

    def __init__(self, unet: DHDiffUNet, text_encoder: nn.Module, vae: Any, scheduler: Any, config: Config) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.frozen = (vae,)  # in a tuple, so that the autoencoder is no parameter of the engine
        self.scheduler = scheduler  # DDPM: adds noise, names the target
        self.config = config.train

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective of a batch, and its parts for the log."""
        c, (vae,) = self.config, self.frozen
        generator = torch.Generator().manual_seed(batch.seed)
        device, count = batch.image.device, len(batch.image)
        with torch.no_grad():
            z = join(vae.encode(batch.image), vae.encode(mask_to_image(batch.mask)))  # (2b, c, h, w)
            noise = torch.randn(z.shape, generator=generator).to(z)
            t = torch.randint(self.scheduler.config.num_train_timesteps, (count,), generator=generator).to(device)
            region = functional.max_pool2d(batch.region, vae.factor)  # (b, 1, h, w)
            region = join(region, region)
            noised = region * self.scheduler.add_noise(z, noise, join(t, t)) + (1 - region) * z  # (2b, c, h, w)
            target = noise if c.prediction == "epsilon" else self.scheduler.get_velocity(z, noise, join(t, t))
        text = self.text_encoder(batch.tokens).last_hidden_state  # (b, t, k)
        references = None
        if c.reference != "none" and self.unet.uses_reference:
            z_reference, t_reference = self._noised_reference(vae.encode(batch.reference), noise[:count], t, generator)
            references = self.unet.encode_reference(z_reference, t_reference, text)
        predicted = self.unet(
            noised,
            t,
            text,
            references=references,
            control_mask=batch.control_mask,
            control_present=batch.control_present,
            defect_tokens=batch.defect_tokens,
        )
        loss, image, annotation = dh_loss(predicted, target, region)
        return loss, {"loss": loss.detach(), "loss_image": image, "loss_annotation": annotation}

    def _noised_reference(
        self, z: Tensor, same: Tensor, t: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.config.reference_noise == "clean":
            return z, torch.zeros_like(t)
        noise = same
        if self.config.reference_noise == "independent":
            noise = torch.randn(z.shape, generator=generator).to(z)
        return self.scheduler.add_noise(z, noise, t), t
