"""DHDiffPipeline: draws images together with their masks, sections III-B to III-E.

Decided: one generator per pair, all its noise drawn from it on the CPU, so that a pair depends on nothing but its
request; ``background`` puts the base back outside the raw mask at each step (not in the paper).
Shapes: b pairs, h x w pixels, c x h' x w' latents, t text tokens of width k.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional

from dhdiff_ray.model.blend import share_of_drawn
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.inputs import Boxes, Points, as_generators, as_images, as_masks, cells_of, drawn_control
from dhdiff_ray.model.latents import HaarTransform, decode, encode, image_to_mask, latent_shape, mask_to_image
from dhdiff_ray.model.outputs import DHDiffOutput, OutputType, as_output
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.model.unet import DHDiffUNet

COMPONENTS = (DHDiffUNet, HaarTransform, TinyAutoencoder)
"""diffusers loads a component only if its class is imported already."""


class DHDiffPipeline(DiffusionPipeline):
    """Samples z = (z^I, z^A) jointly and decodes image and mask."""

    config: Any

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        self.register_to_config(defaults=defaults or {})
        self.precision = "fp32"

    def speed_up(self, precision: Literal["fp32", "bf16"] = "fp32", compiled: bool = False) -> DHDiffPipeline:
        """Run the U-Net in bf16 (autocast), or compiled, anew per size of batch and picture; pairs differ a little."""
        self.precision = precision
        if compiled:
            self.unet.compile()
        return self

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        defect: str | Sequence[str] | None = None,
        base: Any = None,
        reference: Any = None,
        raw_mask: Any = None,
        control_mask: Any = None,
        points: Points | None = None,
        boxes: Boxes | None = None,
        num_pairs: int = 1,
        seed: int | None = None,
        generator: Sequence[torch.Generator] | None = None,
        size: tuple[int, int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        start: Literal["noise", "base"] = "noise",
        strength: float = 1.0,
        background: Literal["free", "keep", "clean"] | None = None,
        fade: bool | None = None,
        reference_noise: Literal["same", "independent", "clean"] | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None] | None = None,
        return_score_maps: bool | Sequence[int] = False,
    ) -> DHDiffOutput:
        """Draw one pair per prompt; what is None is as the model was published.

        Args:
            prompt: one per pair; may be left out where ``defect`` is given.
            defect: the defect's words in each prompt, which carry the control map; one, or one per pair.
            base: product images that the defects are put on; needed by ``start="base"`` and by a kept background.
            reference: reference images. Like ``base`` a PIL image, a uint8 array (h, w, 3), a list of them with None
                where a pair has none, or a tensor (b, 3, h, w) in [-1, 1].
            raw_mask: cells where the defects go; made from the control where it is left out.
            control_mask: S^O: where the defects go in detail. Masks are PIL images or arrays, above zero inside, a list
                of them, or a tensor (b, 1, h, w) in [0, 1].
            points: (x, y) in pixels, instead of a control mask: the cells that hold them, for all pairs.
            boxes: (left, top, right, bottom) in pixels, likewise; points and boxes add up.
            num_pairs: pairs to draw where prompt and defect are single.
            seed: of the first pair; the next have the next numbers. Drawn at random where neither it nor
                ``generator`` is given.
            generator: CPU generators, one per pair, instead of ``seed``.
            size: height and width in pixels; the base's, or the published model's.
            num_inference_steps: denoising steps.
            guidance_scale: classifier-free guidance; 1 or less switches it off.
            start: pure noise, or the noised base image and raw mask.
            strength: share of the noise schedule that ``start="base"`` runs through.
            background: ``keep`` puts the re-noised base back outside the raw mask at each step, ``clean`` the base
                itself, for models trained with ``clean_background``; both give the base's own pixels there.
            fade: with a kept background, let what is drawn beside the made mask pass into the base.
            reference_noise: as in training.
            output_type: pictures, arrays or tensors.
            callback_on_step_end: called with the pipeline, the step, the timestep and ``{"latents": (2b, c, h', w')}``;
                may answer with other latents. :meth:`decode_latents` makes a preview of them.
            return_score_maps: also return what text attention saw, at every step or at those counted here from 0.

        Raises:
            ValueError: inputs that do not fit together.
        """
        # 1. Check and prepare inputs.
        known, texture = self.config["defaults"] or {}, self.unet.texture
        prompts, defects = self.check_prompts(prompt, defect, num_pairs)
        count = len(prompts)
        generators = as_generators(seed, generator, count)
        steps = num_inference_steps or known.get("num_inference_steps", 20)
        guidance = known.get("guidance_scale", 1.0) if guidance_scale is None else guidance_scale
        reference_noise = reference_noise or known.get("reference_noise", "clean")
        base_images, reference_images = as_images("base", base, count), as_images("reference", reference, count)
        raw, _ = as_masks("raw_mask", raw_mask, count)
        control, present = as_masks("control_mask", control_mask, count)
        given = [x for x in (base_images, reference_images, raw, control) if x is not None]
        height, width = size or (tuple(given[0].shape[-2:]) if given else (known.get("size", 64),) * 2)
        if points or boxes:
            if control is not None:
                raise ValueError("control_mask and points or boxes say the same thing; give one of them")
            control = drawn_control(points, boxes, (height, width), known.get("grid", 5)).expand(count, -1, -1, -1)
        if raw is None and control is not None:
            raw = cells_of(control, known.get("grid", 5))
        background = background or (known.get("background", "free") if base_images is not None else "free")
        fade = bool(known.get("fade") if fade is None else fade)
        self.check_inputs(
            (height, width), start, str(background), strength, base_images, reference_images, raw, control
        )
        base_images, reference_images, raw, control, present = (
            None if x is None else x.to(self.device) for x in (base_images, reference_images, raw, control, present)
        )
        z_known = keep = outside = region = None
        mean: Tensor | float = 0.0  # what the latents in the loop are relative to
        if base_images is not None and raw is not None:
            z_known, keep, outside = self.prepare_background(base_images, raw)
            if background == "clean":
                region = 1 - keep  # (2b, 1, h', w')
                if texture is not None:
                    mean = texture.mean(outside, region)
                    z_known, outside = z_known - mean, outside - mean
            keep = None if background == "free" else keep
        noise = self.prepare_noise((height, width), generators, region)  # (2b, c, h', w')

        # 2. Encode the prompts, with the empty prompt beside them for guidance.
        guided = guidance > 1
        text, defect_tokens = self.encode_prompt(prompts, defects, guided)  # (b, t, k), (b, t); twice b if guided

        # 3. Choose the timesteps.
        self.scheduler.set_timesteps(steps, device=self.device)
        timesteps = self.scheduler.timesteps
        if start == "base":
            timesteps = timesteps[len(timesteps) - max(1, round(len(timesteps) * strength)) :]
            if hasattr(self.scheduler, "set_begin_index"):
                self.scheduler.set_begin_index(len(self.scheduler.timesteps) - len(timesteps))
            latents = self.scheduler.add_noise(z_known, noise, timesteps[:1].expand(2 * count))
        else:
            latents = noise * self.scheduler.init_noise_sigma

        # 4. Encode the reference; a clean one is encoded once for all steps.
        references = z_reference = reference_eps = None
        if reference_images is not None and self.unet.uses_reference:
            z_reference = encode(self.vae, reference_images).to(noise.dtype)  # (b, c, h', w')
            reference_eps = split(noise)[0] if reference_noise == "same" else split(noise)[1]
            if reference_noise == "clean":
                references = self._references(z_reference, torch.zeros_like(timesteps[:1]), text, count)

        # 5. Denoise.
        repeats = 2 if guided else 1
        maps: list[list[dict[str, Any]]] = []
        looked = range(len(timesteps)) if return_score_maps is True else return_score_maps or ()
        for number, t in enumerate(timesteps):
            if keep is not None and outside is not None:
                around = (
                    self.scheduler.add_noise(outside, noise, t.expand(2 * count)) if background == "keep" else outside
                )
                latents = keep * around + (1 - keep) * latents
            if z_reference is not None and reference_noise != "clean":
                noised_reference = self.scheduler.add_noise(z_reference, reference_eps, t.expand(count))
                references = self._references(noised_reference, t[None], text, count)
            watched: list[dict[str, Any]] | None = [] if number in looked else None
            noised = self.scheduler.scale_model_input(latents, t)
            shown = noised if texture is None else noised + mean  # such a network sees latents as they are
            with self._autocast():
                predicted = self.unet(
                    join(*(torch.cat([domain] * repeats) for domain in split(shown))),
                    t.expand(count * repeats),
                    text,
                    references=references,
                    control_mask=None if control is None else torch.cat([control] * repeats),
                    control_present=None if present is None else torch.cat([present] * repeats),
                    defect_tokens=defect_tokens,
                    watched=watched,
                )
            predicted = predicted.to(noise.dtype)
            if watched is not None:
                maps.append([{k: v if k == "layer" else v[-count:] for k, v in m.items()} for m in watched])
            if guided:
                free_i, with_i, free_a, with_a = predicted.chunk(4)
                free, with_text = join(free_i, free_a), join(with_i, with_a)
                predicted = free + guidance * (with_text - free)
            if self.unet.look is not None:
                everywhere = torch.ones_like(noised[:, :1])
                alpha = self.scheduler.alphas_cumprod[t.long().cpu()].to(noised)
                predicted = self.unet.look(predicted, noised, everywhere if region is None else region, alpha)
            latents = self._step(predicted, t, latents, generators, region)
            if callback_on_step_end is not None:
                answer = callback_on_step_end(self, number, int(t), {"latents": latents + mean}) or {}
                latents = answer["latents"] - mean if "latents" in answer else latents

        # 6. Put the base back outside the raw mask, and decode both domains.
        if keep is not None and outside is not None:
            latents = keep * outside + (1 - keep) * latents
        images, float_masks = self.decode_latents(latents + mean)  # (b, 3, h, w), (b, 1, h, w)
        if keep is not None and base_images is not None and raw is not None:
            inside = (raw > 0).to(images)  # (b, 1, h, w); a latent position may reach beyond the raw mask's edge
            float_masks = inside * float_masks
            share = share_of_drawn(inside, float_masks, latent_shape(self.vae)[1], texture is not None, fade)
            images = share * images + (1 - share) * (base_images / 2 + 0.5)
        return as_output(images, float_masks, output_type, maps if return_score_maps else None)

    def check_prompts(
        self, prompt: str | Sequence[str] | None, defect: str | Sequence[str] | None, num_pairs: int
    ) -> tuple[list[str], list[str]]:
        """One prompt and the defect's words in it per pair.

        Raises:
            ValueError: neither is given, or their numbers differ.
        """
        if prompt is None:
            template = (self.config["defaults"] or {}).get("prompt")
            if defect is None or template is None:
                raise ValueError("no prompt given: a pair needs one, such as 'a photo of a capsule with crack'")
            words = [defect] if isinstance(defect, str) else list(defect)
            prompt = [template.format(defect=w.replace("_", " ").lower()) for w in words]
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        defects = [defect or ""] * len(prompts) if defect is None or isinstance(defect, str) else list(defect)
        if not prompts:
            raise ValueError("no prompt given: a pair needs one, such as 'a photo of a capsule with crack'")
        if len(defects) != len(prompts):
            raise ValueError(f"{len(defects)} defects for {len(prompts)} prompts; give one per prompt")
        if len(prompts) == 1:
            prompts, defects = prompts * num_pairs, defects * num_pairs
        return prompts, [d.replace("_", " ").lower() for d in defects]

    def check_inputs(
        self, size: tuple[int, int], start: str, background: str, strength: float, *tensors: Tensor | None
    ) -> None:
        """Refuse what cannot be sampled.

        Raises:
            ValueError: a size the network cannot work on, inputs of other sizes, or what a switch needs is missing.
        """
        step = latent_shape(self.vae)[1] * 2 ** (len(self.unet.backbone.down_blocks) - 1)
        if any(side % step for side in size):
            raise ValueError(
                f"{size[0]} x {size[1]} pixels do not suit this network; sides must be multiples of {step}"
            )
        for name, value in zip(("base", "reference", "raw_mask", "control_mask"), tensors, strict=True):
            if value is not None and tuple(value.shape[-2:]) != tuple(size):
                raise ValueError(f"{name} is {tuple(value.shape[-2:])} pixels, the pair {size}; give them one size")
        if (start == "base" or background != "free") and (tensors[0] is None or tensors[2] is None):
            raise ValueError(
                "start='base' and background='keep' or 'clean' need a base image and a raw mask; give base and one of "
                "control_mask, points, boxes or raw_mask"
            )
        if not 0 < strength <= 1:
            raise ValueError(f"strength = {strength} must lie in (0, 1]")

    def prepare_noise(
        self, size: tuple[int, int], generators: Sequence[torch.Generator], region: Tensor | None = None
    ) -> Tensor:
        """One noise per pair, both domains: (2b, c, h', w'); the image's with its texture inside a region."""
        channels, factor = latent_shape(self.vae)
        shape = (2, channels, size[0] // factor, size[1] // factor)
        each = torch.stack([randn_tensor(shape, g, dtype=self.unet.dtype) for g in generators])  # (b, 2, ...)
        noise = join(each[:, 0], each[:, 1]).to(self.device)
        texture = self.unet.texture
        if texture is None:
            return noise
        white = torch.stack([randn_tensor(texture.white_shape(shape[-2:]), g) for g in generators]).to(self.device)
        return texture.draw(noise, white, torch.ones_like(noise[:, :1]) if region is None else region)

    def prepare_background(self, base: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Base and raw mask as latents, where they are kept (2b, 1, h', w'), and base with an empty mask as latents."""
        dtype, factor = self.unet.dtype, latent_shape(self.vae)[1]
        image, mask = encode(self.vae, base), encode(self.vae, mask_to_image(raw))
        empty = encode(self.vae, mask_to_image(torch.zeros_like(raw)))
        kept = 1 - functional.max_pool2d(raw, factor)  # (b, 1, h', w')
        return join(image, mask).to(dtype), join(kept, kept).to(dtype), join(image, empty).to(dtype)

    def encode_prompt(self, prompts: Sequence[str], defects: Sequence[str], guided: bool) -> tuple[Tensor, Tensor]:
        """Text embedding (b, t, k) and the marks of the defect's tokens (b, t); guided: empty prompts first, 2b."""
        words = ["", *dict.fromkeys(prompts)]
        states = self.text_encoder(tokenize(self.tokenizer, words).to(self.device)).last_hidden_state
        text = states[[words.index(p) for p in prompts]].to(self.unet.dtype)  # (b, t, k)
        marks = mark_defect_tokens(self.tokenizer, tokenize(self.tokenizer, prompts), defects).to(self.device)
        if guided:
            text = torch.cat([states[:1].expand_as(text).to(text.dtype), text])  # (2b, t, k)
            marks = torch.cat([marks, marks])
        return text, marks

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(2b, c, h', w') -> images (b, 3, h, w) in [0, 1] and float masks (b, 1, h, w) in [0, 1]."""
        image, annotation = split(latents)
        images = (decode(self.vae, image).float() / 2 + 0.5).clamp(0, 1)
        return images, image_to_mask(decode(self.vae, annotation).float())

    def _step(
        self, predicted: Tensor, t: Tensor, latents: Tensor, generators: Sequence[torch.Generator], region: Any
    ) -> Tensor:
        """One step of the scheduler; what noise it wants comes from the pairs' own generators."""
        extra: dict[str, Any] = {}
        wanted = inspect.signature(self.scheduler.step).parameters
        stochastic = str(self.scheduler.config.get("algorithm_type", "sde")).startswith("sde")
        if "variance_noise" in wanted and "algorithm_type" in self.scheduler.config and stochastic:
            factor = latent_shape(self.vae)[1]
            size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
            extra["variance_noise"] = self.prepare_noise(size, generators, region)
        elif "generator" in wanted and "variance_noise" not in wanted and self.unet.texture is not None:
            raise ValueError(
                f"{type(self.scheduler).__name__} adds white noise of its own, and this model's noise has a texture; "
                "use DPMSolverMultistepScheduler or DDIMScheduler"
            )
        elif "generator" in wanted:
            extra["generator"] = [*generators, *generators]
        return self.scheduler.step(predicted, t, latents, return_dict=False, **extra)[0]

    def _references(self, latents: Tensor, timestep: Tensor, text: Tensor, count: int) -> dict[int, Tensor]:
        repeats = text.shape[0] // count
        latents = latents.repeat(repeats, 1, 1, 1)
        with self._autocast():
            return self.unet.encode_reference(latents, timestep.expand(count * repeats), text)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
