"""DHDiffPipeline: draws images together with their masks, sections III-B to III-E.

Decided: one generator per pair, all its noise drawn from it on the CPU, so that a pair depends on nothing but its
request; ``background`` puts the base back outside the raw mask at each step (not in the paper).
Shapes: b pairs, h x w pixels, c x h' x w' latents, t text tokens of width k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn import functional

from dhdiff_ray.model.courses import Course, Courses, courses_of
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.inputs import (
    Boxes,
    Conditions,
    Inputs,
    Kept,
    Points,
    Sampling,
    as_generators,
    as_inputs,
    as_prompts,
    check_inputs,
    white_noise,
)
from dhdiff_ray.model.latents import HaarTransform, decode, encode, image_to_mask, latent_shape, mask_to_image
from dhdiff_ray.model.outputs import DHDiffOutput, OutputType, ScoreMaps, as_output, share_of_drawn
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.model.unet import DHDiffUNet

COMPONENTS = (DHDiffUNet, HaarTransform, TinyAutoencoder)
"""diffusers loads a component only if its class is imported already."""
OnStepEnd = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None]


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

    @property
    def device(self) -> torch.device:
        """Where the network is; diffusers' own property walks through all layers, at each step of each pair."""
        return self.unet.device

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
        start: Literal["noise", "base", "reference"] = "noise",
        strength: float | Sequence[float] = 1.0,
        placed: Any = None,
        placed_mask: Any = None,
        background: Literal["free", "keep", "clean"] | None = None,
        fade: bool | None = None,
        reference_noise: Literal["same", "independent", "clean"] | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: OnStepEnd | None = None,
        return_score_maps: bool | Sequence[int] = False,
    ) -> DHDiffOutput:
        """Draw one pair per prompt; arguments that are None take the published model's values.

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
            boxes: (left, top, right, bottom) in pixels, likewise: what they touch; points and boxes add up.
            num_pairs: pairs to draw where prompt and defect are single.
            seed: of the first pair; the next have the next numbers. Drawn at random where neither it nor
                ``generator`` is given.
            generator: CPU generators, one per pair, instead of ``seed``.
            size: height and width in pixels; the base's, or the published model's.
            num_inference_steps: denoising steps.
            guidance_scale: classifier-free guidance; 1 or less switches it off.
            start: pure noise; the noised base image and raw mask; or, noised, a real defect on the base and its mask.
            strength: share of the noise schedule that ``start="base"`` and ``"reference"`` run through; one, or one
                per pair. 0, for a reference alone, is what was placed as the autoencoder gives it back.
            placed: for ``start="reference"``: products with a real defect on them, like ``base``.
            placed_mask: where that is, like ``raw_mask``, which for such a start is any mask that holds it.
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
        # 1. What is given, as tensors of one size; what is None is as published.
        published = self.config["defaults"] or {}
        prompts, defects = as_prompts(prompt, defect, num_pairs, published.get("prompt"))
        generators = as_generators(seed, generator, len(prompts))
        pictures = {"base": base, "reference": reference, "raw_mask": raw_mask, "control_mask": control_mask}
        pictures |= {"placed": placed, "placed_mask": placed_mask}
        inputs = as_inputs(prompts, defects, generators, self.device, published, size, points, boxes, **pictures)
        sampling = Sampling(
            steps=num_inference_steps or published.get("num_inference_steps", 20),
            guidance=published.get("guidance_scale", 1.0) if guidance_scale is None else guidance_scale,
            start=start,
            strengths=(strength,) * len(prompts) if isinstance(strength, int | float) else tuple(strength),
            background=background or ("free" if inputs.base is None else published.get("background", "free")),
            fade=bool(published.get("fade") if fade is None else fade),
            reference_noise=reference_noise or published.get("reference_noise", "clean"),
        )
        check_inputs(inputs, sampling, latent_shape(self.vae)[1] * 2 ** (len(self.unet.backbone.down_blocks) - 1))

        # 2. What the denoising loop needs.
        conditions = self.prepare(inputs, sampling)

        # 3. Denoise.
        latents, maps = self.denoise(conditions, callback_on_step_end, return_score_maps)  # (2b, c, h', w')

        # 4. Decode both domains and put the base back outside the raw mask.
        images, float_masks = self.finish(latents, conditions)  # (b, 3, h, w), (b, 1, h, w)
        return as_output(images, float_masks, output_type, maps if return_score_maps else None)

    def prepare(self, inputs: Inputs, sampling: Sampling) -> Conditions:
        """Compute all inputs of the denoising loop, on the pipeline's device."""
        # 1. The product as latents, and where it stays.
        z_start = region = kept = None
        mean: Tensor | float = 0.0
        if inputs.base is not None and inputs.raw_mask is not None:
            z_start, weight, outside = self.prepare_background(inputs.base, inputs.raw_mask)
            if sampling.background == "clean":
                region = 1 - weight  # (2b, 1, h', w')
                if self.unet.texture is not None:
                    mean = self.unet.texture.mean(outside, region)
                    z_start, outside = z_start - mean, outside - mean
            kept = None if sampling.background == "free" else Kept(inputs.base, inputs.raw_mask, outside, weight)

        # 2. The noise, the timesteps, and what the first one starts from.
        noise = self.prepare_noise(inputs.size, inputs.generators, region)  # (2b, c, h', w')
        if sampling.start == "reference":
            z_start = self.prepare_placed(inputs.placed, inputs.placed_mask) - mean
        courses, latents = self.prepare_latents(noise, z_start, sampling)

        # 3. The prompts, with the empty prompt beside them for guidance.
        repeats = 2 if sampling.guidance > 1 else 1
        text, defect_tokens = self.encode_prompt(inputs.prompts, inputs.defects, repeats > 1)  # (r, t, k), (r, t)
        control, present = (
            None if x is None else torch.cat([x] * repeats) for x in (inputs.control_mask, inputs.control_present)
        )

        # 4. The reference; a clean one is encoded once for all steps.
        z_reference = reference_noise = references = None
        if inputs.reference is not None and self.unet.uses_reference and len(courses.timesteps):
            z_reference = encode(self.vae, inputs.reference).to(noise.dtype)  # (b, c, h', w')
            if sampling.reference_noise == "clean":
                references = self._references(z_reference, torch.zeros_like(courses.timesteps[0]), text)
            elif sampling.reference_noise == "same":
                reference_noise = split(noise)[0]
            else:  # the annotation's would reach the image through the reference
                reference_noise = white_noise(z_reference.shape[1:], inputs.generators, noise)  # (b, c, h', w')
        return Conditions(
            sampling=sampling,
            generators=inputs.generators,
            noise=noise,
            courses=courses,
            latents=latents,
            mean=mean,
            region=region,
            kept=kept,
            text=text,
            defect_tokens=defect_tokens,
            control_mask=control,
            control_present=present,
            reference=z_reference,
            reference_noise=reference_noise,
            references=references,
        )

    def denoise(
        self, c: Conditions, on_step_end: OnStepEnd | None = None, watch: bool | Sequence[int] = False
    ) -> tuple[Tensor, ScoreMaps]:
        """The loop over the timesteps: latents (2b, c, h', w'), and the score maps of the steps to watch."""
        latents, maps = c.latents, []
        height, width = (side * latent_shape(self.vae)[1] for side in latents.shape[-2:])

        def new_noise(one: Course) -> Tensor:
            region = None if c.region is None else c.region[one.rows(c.region)]
            return self.prepare_noise((height, width), [c.generators[at] for at in one.pairs], region)

        watched_steps = range(len(c.courses.timesteps)) if watch is True else watch or ()
        for number, t in enumerate(c.courses.timesteps):
            if c.kept is not None:
                anew = c.courses.add_noise(c.kept.latents, c.noise, number) if c.sampling.background == "keep" else None
                latents = c.kept.around(latents, anew)
            watched: list[dict[str, Any]] | None = [] if number in watched_steps else None
            predicted, textured = self.predict(latents, number, c, watched), self.unet.texture is not None
            latents = c.courses.step(predicted, latents, number, c.generators, new_noise, textured)
            if watched is not None:
                maps.append([{k: v if k == "layer" else v[-c.count :] for k, v in m.items()} for m in watched])
            if on_step_end is not None:
                answer = on_step_end(self, number, int(t), {"latents": latents + c.mean}) or {}
                latents = answer["latents"] - c.mean if "latents" in answer else latents
        latents = latents if c.kept is None else c.kept.around(latents)
        return latents + c.mean, maps

    def predict(
        self, latents: Tensor, number: int, c: Conditions, watched: list[dict[str, Any]] | None = None
    ) -> Tensor:
        """The noise or velocity of both domains at a step of the loop: (2b, c, h', w') -> (2b, c, h', w')."""
        references, t = c.references, c.courses.timesteps[number]
        if c.reference is not None and c.reference_noise is not None:
            references = self._references(c.courses.add_noise(c.reference, c.reference_noise, number), t, c.text)
        noised = c.courses.scaled(latents, number)
        shown = noised if self.unet.texture is None else noised + c.mean  # such a network sees latents as they are
        repeats = 2 if c.guided else 1
        with self._autocast():
            predicted = self.unet(
                join(*(torch.cat([domain] * repeats) for domain in split(shown))),
                t.expand(c.count * repeats),
                c.text,
                references=references,
                control_mask=c.control_mask,
                control_present=c.control_present,
                defect_tokens=c.defect_tokens,
                watched=watched,
            ).to(c.noise.dtype)
        if c.guided:
            free_i, with_i, free_a, with_a = predicted.chunk(4)
            free, with_text = join(free_i, free_a), join(with_i, with_a)
            predicted = free + c.sampling.guidance * (with_text - free)
        if self.unet.look is not None:
            region = torch.ones_like(noised[:, :1]) if c.region is None else c.region
            alpha = self.scheduler.alphas_cumprod[t.long().cpu()].to(noised)
            predicted = self.unet.look(predicted, noised, region, alpha)
        return predicted

    def finish(self, latents: Tensor, c: Conditions) -> tuple[Tensor, Tensor]:
        """(2b, c, h', w') -> images (b, 3, h, w) and float masks (b, 1, h, w) in [0, 1], the base's own outside."""
        images, float_masks = self.decode_latents(latents)
        if c.kept is not None:
            inside = (c.kept.raw_mask > 0).to(images)  # a latent position may reach beyond the raw mask's edge
            float_masks = inside * float_masks
            factor, textured = latent_shape(self.vae)[1], self.unet.texture is not None
            share = share_of_drawn(inside, float_masks, factor, textured, c.sampling.fade)  # (b, 1, h, w)
            images = share * images + (1 - share) * (c.kept.base / 2 + 0.5)
        return images, float_masks

    def prepare_noise(
        self, size: tuple[int, int], generators: Sequence[torch.Generator], region: Tensor | None = None
    ) -> Tensor:
        """One noise per pair, both domains: (2b, c, h', w'); the image's with its texture inside a region."""
        channels, factor = latent_shape(self.vae)
        sides = (size[0] // factor, size[1] // factor)
        like = torch.empty(0, dtype=self.unet.dtype, device=self.device)
        noise = join(*white_noise((2, channels, *sides), generators, like).unbind(1))
        if (texture := self.unet.texture) is None:
            return noise
        white = white_noise(texture.white_shape(sides), generators, like.float())
        return texture.draw(noise, white, torch.ones_like(noise[:, :1]) if region is None else region)

    def prepare_background(self, base: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Base and raw mask as latents, where they are kept (2b, 1, h', w'), and base with an empty mask as latents."""
        dtype, factor = self.unet.dtype, latent_shape(self.vae)[1]
        image, mask = encode(self.vae, base), encode(self.vae, mask_to_image(raw))
        empty = encode(self.vae, mask_to_image(torch.zeros_like(raw)))
        kept = 1 - functional.max_pool2d(raw, factor)  # (b, 1, h', w')
        return join(image, mask).to(dtype), join(kept, kept).to(dtype), join(image, empty).to(dtype)

    def prepare_placed(self, placed: Tensor | None, mask: Tensor | None) -> Tensor:
        """Products with a real defect on them and its mask as latents: (2b, c, h', w')."""
        assert placed is not None and mask is not None, "checked before"
        return join(encode(self.vae, placed), encode(self.vae, mask_to_image(mask))).to(self.unet.dtype)

    def prepare_latents(self, noise: Tensor, z_start: Tensor | None, sampling: Sampling) -> tuple[Courses, Tensor]:
        """What pairs run through, and their latents (2b, c, h', w') before: the noise alone, or ``z_start`` noised."""
        strengths = None if sampling.start == "noise" else sampling.strengths
        courses = courses_of(self.scheduler, sampling.steps, self.device, strengths, len(noise) // 2)
        if strengths is None or z_start is None:
            return courses, noise * self.scheduler.init_noise_sigma
        return courses, courses.noised(z_start, noise)

    def encode_prompt(self, prompts: Sequence[str], defects: Sequence[str], guided: bool) -> tuple[Tensor, Tensor]:
        """Text embedding (b, t, k) and the marks of the defect's tokens (b, t); guided: empty prompts first, 2b."""
        words = ["", *dict.fromkeys(prompts)]
        states = self.text_encoder(tokenize(self.tokenizer, words).to(self.device)).last_hidden_state
        text = states[[words.index(p) for p in prompts]].to(self.unet.dtype)  # (b, t, k)
        marks = mark_defect_tokens(self.tokenizer, tokenize(self.tokenizer, prompts), defects).to(self.device)
        if guided:
            text = torch.cat([states[:1].expand_as(text).to(text.dtype), text])  # (2b, t, k)
            marks = torch.cat([torch.zeros_like(marks), marks])  # no word there names a defect, as in training
        return text, marks

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(2b, c, h', w') -> images (b, 3, h, w) in [0, 1] and float masks (b, 1, h, w) in [0, 1]."""
        image, annotation = split(latents)
        images = (decode(self.vae, image).float() / 2 + 0.5).clamp(0, 1)
        return images, image_to_mask(decode(self.vae, annotation).float())

    def _references(self, latents: Tensor, t: Tensor, text: Tensor) -> dict[int, Tensor]:
        latents = latents.repeat(len(text) // len(latents), 1, 1, 1)
        with self._autocast():
            return self.unet.encode_reference(latents, t.expand(len(text)), text)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
