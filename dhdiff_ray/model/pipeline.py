"""DHDiffPipeline: draws images together with their masks, sections III-B to III-E.

Decided: one generator per pair, its noise drawn on the CPU, so that a pair depends on nothing but its request;
``background`` puts the base back outside the raw mask at each step (not in the paper).
Shapes: b pairs, h x w pixels, c x h' x w' latents, t text tokens of width k.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import image_to_mask, mask_to_image
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.model.unet import DHDiffUNet


@dataclass
class DHDiffOutput(BaseOutput):
    """Pairs: images (b, 3, h, w) in [0, 1], float masks (b, 1, h, w) in [0, 1], binary masks (b, 1, h, w)."""

    images: Tensor
    float_masks: Tensor
    masks: Tensor


class DHDiffPipeline(DiffusionPipeline):
    """Samples z = (z^I, z^A) jointly and decodes image and mask."""

    def __init__(self, unet: DHDiffUNet, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)

    def check_inputs(self, prompts: Sequence[str], **tensors: Tensor | None) -> None:
        """Refuse what cannot be sampled.

        Raises:
            ValueError: no prompt, or an input whose batch is not that of the prompts.
        """
        if not prompts:
            raise ValueError("no prompt given: a pair needs one, such as 'a photo of a capsule with crack'")
        for name, value in tensors.items():
            if value is not None and value.shape[0] != len(prompts):
                raise ValueError(f"{name} holds {value.shape[0]} for {len(prompts)} prompts; give one per prompt")

    def encode_prompt(self, prompts: Sequence[str], defects: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Text embedding (b, t, k) and the marks of the defect's tokens (b, t)."""
        tokens = tokenize(self.tokenizer, prompts).to(self.device)
        return self.text_encoder(tokens).last_hidden_state, mark_defect_tokens(self.tokenizer, tokens, defects).to(
            self.device
        )

    def prepare_noise(self, count: int, size: tuple[int, int], generators: Sequence[torch.Generator]) -> Tensor:
        """One noise per pair, both domains: (2b, c, h', w')."""
        c, f = self.vae.channels, self.vae.factor
        shape = (2, c, size[0] // f, size[1] // f)
        each = torch.stack([randn_tensor(shape, g, dtype=self.unet.dtype) for g in generators[:count]])  # (b, 2, ...)
        return join(each[:, 0], each[:, 1]).to(self.device)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        generators: Sequence[torch.Generator],
        *,
        defects: Sequence[str] | None = None,
        size: tuple[int, int] = (64, 64),
        reference: Tensor | None = None,
        base: Tensor | None = None,
        raw_mask: Tensor | None = None,
        control_mask: Tensor | None = None,
        steps: int = 20,
        guidance: float = 1.0,
        start: Literal["noise", "base"] = "noise",
        strength: float = 1.0,
        background: Literal["free", "keep", "clean"] = "free",
        reference_noise: Literal["same", "independent", "clean"] = "clean",
        on_step: Callable[[int, int], None] | None = None,
    ) -> DHDiffOutput:
        """Draw one pair per prompt.

        Args:
            prompts: one per pair.
            generators: CPU generators, one per pair.
            defects: the defect's words in each prompt, for the control map.
            size: height and width in pixels.
            reference: reference images (b, 3, h, w) in [-1, 1].
            base: base images (b, 3, h, w) in [-1, 1]; needed by ``start="base"`` and by a kept background.
            raw_mask: (b, 1, h, w) of 0 and 1; needed by the same.
            control_mask: S^O's mask (b, 1, h, w) in [0, 1].
            steps: denoising steps.
            guidance: classifier-free guidance scale; 1 or less switches it off.
            start: pure noise, or the noised base image and raw mask.
            strength: share of the noise schedule that ``start="base"`` runs through.
            background: ``keep`` puts the re-noised base back outside the raw mask at each step, ``clean`` the base
                itself, for models trained with ``clean_background``.
            reference_noise: as in training.
            on_step: called after each step with its number and the number of steps.

        Raises:
            ValueError: inputs that do not fit together.
        """
        # 1. Check and prepare inputs.
        self.check_inputs(prompts, reference=reference, base=base, raw_mask=raw_mask, control_mask=control_mask)
        if (start == "base" or background != "free") and (base is None or raw_mask is None):
            raise ValueError("start='base' and background='keep' or 'clean' need a base image and a raw mask")
        count = len(prompts)
        noise = self.prepare_noise(count, size, generators)  # (2b, c, h', w')
        known = keep = known_outside = None
        if base is not None and raw_mask is not None:
            known = join(self.vae.encode(base), self.vae.encode(mask_to_image(raw_mask)))  # (2b, c, h', w')
            if background != "free":
                empty = self.vae.encode(mask_to_image(torch.zeros_like(raw_mask)))
                known_outside = join(split(known)[0], empty)
                kept = 1 - torch.nn.functional.max_pool2d(raw_mask, self.vae.factor)  # (b, 1, h', w')
                keep = join(kept, kept)

        # 2. Encode the prompt, with the empty prompt beside it for guidance.
        guided = guidance > 1
        text, defect_tokens = self.encode_prompt(prompts, defects or [""] * count)  # (b, t, k), (b, t)
        if guided:
            text = torch.cat([self.encode_prompt([""] * count, [""] * count)[0], text])  # (2b, t, k)
            defect_tokens = torch.cat([defect_tokens, defect_tokens])

        # 3. Choose the timesteps.
        self.scheduler.set_timesteps(steps, device=self.device)
        timesteps = self.scheduler.timesteps
        if start == "base":
            timesteps = timesteps[len(timesteps) - max(1, round(len(timesteps) * strength)) :]
            if hasattr(self.scheduler, "set_begin_index"):
                self.scheduler.set_begin_index(len(self.scheduler.timesteps) - len(timesteps))
            latents = self.scheduler.add_noise(known, noise, timesteps[:1].expand(2 * count))
        else:
            latents = noise * self.scheduler.init_noise_sigma

        # 4. Encode the reference; a clean one is encoded once for all steps.
        references = z_reference = reference_eps = None
        if reference is not None and self.unet.uses_reference:
            z_reference = self.vae.encode(reference)  # (b, c, h', w')
            reference_eps = split(noise)[0] if reference_noise == "same" else split(noise)[1]
            if reference_noise == "clean":
                references = self._references(z_reference, torch.zeros_like(timesteps[:1]), text, count)

        # 5. Denoise.
        for number, t in enumerate(timesteps):
            if keep is not None and known_outside is not None:
                outside = known_outside
                if background == "keep":
                    outside = self.scheduler.add_noise(known_outside, noise, t.expand(2 * count))
                latents = keep * outside + (1 - keep) * latents
            if z_reference is not None and reference_noise != "clean":
                noised = self.scheduler.add_noise(z_reference, reference_eps, t.expand(count))
                references = self._references(noised, t[None], text, count)
            repeats = 2 if guided else 1
            model_input = self.scheduler.scale_model_input(latents, t)
            if guided:
                image, annotation = split(model_input)
                model_input = join(torch.cat([image, image]), torch.cat([annotation, annotation]))
            predicted = self.unet(
                model_input,
                t.expand(count * repeats),
                text,
                references=references,
                control_mask=None if control_mask is None else torch.cat([control_mask] * repeats),
                defect_tokens=defect_tokens,
            )
            if guided:
                free_i, with_i, free_a, with_a = predicted.chunk(4)
                free, with_text = join(free_i, free_a), join(with_i, with_a)
                predicted = free + guidance * (with_text - free)
            latents = self._step(predicted, t, latents, generators)
            if on_step is not None:
                on_step(number + 1, len(timesteps))

        # 6. Put the base back outside the raw mask.
        if keep is not None and known_outside is not None:
            latents = keep * known_outside + (1 - keep) * latents

        # 7. Decode both domains.
        image, annotation = split(latents)
        images = (self.vae.decode(image) / 2 + 0.5).clamp(0, 1)  # (b, 3, h, w)
        float_masks = image_to_mask(self.vae.decode(annotation))  # (b, 1, h, w)
        return DHDiffOutput(images=images, float_masks=float_masks, masks=(float_masks > 0.5).to(images.dtype))

    def _step(self, predicted: Tensor, t: Tensor, latents: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """One step of the scheduler; what noise it wants comes from the pairs' own generators."""
        extra: dict[str, Any] = {}
        if "variance_noise" in self._step_options:
            factor = self.vae.factor
            size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
            extra["variance_noise"] = self.prepare_noise(len(latents) // 2, size, generators)
        return self.scheduler.step(predicted, t, latents, return_dict=False, **extra)[0]

    @property
    def _step_options(self) -> set[str]:
        stochastic = str(self.scheduler.config.get("algorithm_type", "")).startswith("sde")
        return set(inspect.signature(self.scheduler.step).parameters) if stochastic else set()

    def _references(self, latents: Tensor, timestep: Tensor, text: Tensor, count: int) -> dict[int, Tensor]:
        repeats = text.shape[0] // count
        latents = latents.repeat(repeats, 1, 1, 1)
        return self.unet.encode_reference(latents, timestep.expand(count * repeats), text)
