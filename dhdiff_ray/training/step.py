"""One optimisation step as a pure function, batch -> loss (Eq. 8, section IV-B).

Decided: a worker draws the noise and the timesteps of the step's whole batch and keeps its own rows, and its loss is
its part of the whole batch's: the mean over workers is what one worker alone computes, however many there are. They are
drawn where the step is computed; a GPU's numbers are not a CPU's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.config import Config
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import Autoencoder, encode, latent_shape, mask_to_image
from dhdiff_ray.model.loss import defect_loss, dh_loss
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.training.batches import Batch


class Objective(nn.Module):
    """Everything that is trained, and how a batch becomes a loss."""

    def __init__(
        self, unet: DHDiffUNet, text_encoder: nn.Module, vae: Autoencoder, scheduler: Any, config: Config
    ) -> None:
        super().__init__()
        self.unet = unet
        # In a tuple, so that what is frozen is no parameter of the engine.
        self.frozen: tuple[Any, nn.Module] = (vae, text_encoder)
        self.scheduler = scheduler  # DDPM: adds noise, names the target
        self.config = config.train

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the optimiser and the average hold, in a fixed order."""
        return [p for p in self.parameters() if p.requires_grad]

    def frozen_to(self, device: torch.device | str) -> None:
        """Move what is not trained; the engine moves the rest."""
        for module in self.frozen:
            module.to(device)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective of a batch, and its parts for the log; on several workers the mean over them is meant."""
        c, (vae, text_encoder) = self.config, self.frozen
        device, count, total = batch.image.device, len(batch.image), len(batch.regions)
        generator = torch.Generator(device).manual_seed(batch.seed)
        here = {"generator": generator, "device": device}
        factor = latent_shape(vae)[1]
        with torch.no_grad():
            z, z_reference = self._latents(batch)  # (2b, c, h, w), (b, c, h, w)
            whole = torch.randn((2 * total, *z.shape[1:]), **here)  # (2n, c, h, w)
            noise = join(*(domain[batch.rows] for domain in split(whole))).to(z)  # (2b, c, h, w)
            steps = self.scheduler.config.num_train_timesteps
            t = torch.randint(steps, (total,), **here)[batch.rows]  # (b,)
            regions = functional.max_pool2d(batch.regions, factor)  # (n, 1, h, w)
            region = join(regions[batch.rows], regions[batch.rows])  # (2b, 1, h, w)
            seen: Tensor | float = 0.0  # what the network sees its input on
            texture = self.unet.texture
            if texture is not None:
                shape = (total, *texture.white_shape((z.shape[-2], z.shape[-1])))
                white = torch.randn(shape, **here)[batch.rows].to(z)  # (b, c, p, p)
                noise, seen = texture.draw_and_mean(noise, white, z, region)
                z = z - seen
            share = regions.sum() * z.shape[1] / batch.ranks  # values of one domain that are judged, per worker
            noised = region * self.scheduler.add_noise(z, noise, join(t, t)) + (1 - region) * z  # (2b, c, h, w)
            target = noise if c.prediction == "epsilon" else self.scheduler.get_velocity(z, noise, join(t, t))
        with torch.autocast(device.type, torch.bfloat16, enabled=c.precision == "bf16"):
            text = batch.text  # (b, t, k)
            if text is None:
                text = text_encoder(batch.tokens).last_hidden_state
            references = None
            if c.reference != "none" and self.unet.uses_reference:
                z_reference, t_reference = self._noised_reference(z_reference, noise[:count], t, batch, generator)
                references = self.unet.encode_reference(z_reference, t_reference, text)
            predicted = self.unet(
                noised + seen,
                t,
                text,
                references=references,
                control_mask=batch.control_mask,
                control_present=batch.control_present,
                defect_tokens=batch.defect_tokens,
            )
        if self.unet.look is not None:
            alpha = self.scheduler.alphas_cumprod.to(device)[join(t, t)]  # (2b,)
            predicted = self.unet.look(predicted.float(), noised, region, alpha)
        loss, image, annotation = dh_loss(predicted, target, region, share)
        if c.defect_weight:
            defect = functional.max_pool2d(batch.mask, factor) * split(region)[0]  # (b, 1, h, w)
            loss = loss + c.defect_weight * defect_loss(predicted, target, defect, total / batch.ranks)
        return loss, {"loss": loss.detach(), "loss_image": image, "loss_annotation": annotation}

    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both domains z = (z^I, z^A), joined, and the reference's latent; encoded here where they were not cached."""
        if batch.latents is not None:
            image, mask, reference = batch.latents
            return join(image, mask), reference
        vae = self.frozen[0]
        z = join(encode(vae, batch.image), encode(vae, mask_to_image(batch.mask)))
        return z, encode(vae, batch.reference)

    def _noised_reference(
        self, z: Tensor, same: Tensor, t: Tensor, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.config.reference_noise == "clean":
            return z, torch.zeros_like(t)
        noise = same
        if self.config.reference_noise == "independent":
            shape = (len(batch.regions), *z.shape[1:])
            noise = torch.randn(shape, generator=generator, device=z.device)[batch.rows].to(z)
        return self.scheduler.add_noise(z, noise, t), t
