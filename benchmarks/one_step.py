"""At which noise does a trained run know where a defect is, and how it looks?

    python -m benchmarks.one_step STORAGE RUN [CATEGORY] [--model FOLDER]

Made for runs with a clean reference that predict the velocity. Real training anomalies are noised inside their raw
mask; from each noise level the clean pair is predicted once. Told are the mean absolute difference of mean brightness
between the real mask and the 6 pixels around it, in grey values of 255 (``contrast``; that of the real images beside
it), and the predicted mask's IoU with the real one. Where masks are known long before the look, defects are timid.
"""

import json

import numpy as np
import torch
from torch.nn import functional

from benchmarks.edges import contrast
from benchmarks.trained_run import arguments, one_category
from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import decode, encode, image_to_mask, latent_shape, mask_to_image
from dhdiff_ray.training.batches import BatchSource
from dhdiff_ray.training.examples import Examples

LEVELS = (999, 900, 800, 700, 600, 400, 200)
BATCHES, ROWS = 6, 4


def main():
    asked = arguments().parse_args()
    config, held, category, pipeline = one_category(asked)
    plain = {"normal_fraction": 0.0, "clean_background": 1.0, "window": 0}
    plain |= {"text_dropout": 0.0, "control_dropout": 0.0, "fine_control": 0.0}
    config = config.model_copy(update={"train": config.train.model_copy(update=plain)})
    samples = [s for s in held.category(category).train if not s.is_good]
    samples, images, masks = read_many(samples, config.data.resolution, False, print)
    examples = Examples.of(config, samples, images, masks, pipeline.tokenizer)
    told = looked_at(pipeline, BatchSource(config, examples))
    print(json.dumps({"run": asked.run, "category": category, "images": BATCHES * ROWS, **told}, indent=2))


@torch.no_grad()
def looked_at(pipeline, source):
    """Contrast of the real images, and contrast and IoU per noise level."""
    real, levels = [], {level: ([], []) for level in LEVELS}
    for number in range(BATCHES):
        batch = source.draw(number, ROWS)
        masks = [mask[0].numpy() > 0.5 for mask in batch.mask]
        real += contrasts(batch.image, masks)
        for level, (image, annotation) in predictions(pipeline, batch, number):
            contrast_there, iou = levels[level]
            contrast_there += contrasts(image, masks)
            for one, mask in zip(annotation[:, 0].numpy() > 0.5, masks, strict=True):
                iou.append((one & mask).sum() / max((one | mask).sum(), 1))
    told = {str(t): {"contrast": mean(c), "iou": mean(iou)} for t, (c, iou) in levels.items()}
    return {"contrast_real": mean(real), "levels": told}


def predictions(pipeline, batch, seed):
    """The clean pair that is predicted once from each level: (level, (images, float masks))."""
    unet, texture = pipeline.unet, pipeline.unet.texture
    z = join(encode(pipeline.vae, batch.image), encode(pipeline.vae, mask_to_image(batch.mask)))
    region = functional.max_pool2d(batch.regions, latent_shape(pipeline.vae)[1])
    region = join(region, region)
    generator = torch.Generator().manual_seed(seed)
    noise, mean_there = torch.randn(z.shape, generator=generator), torch.zeros_like(z)
    if texture is not None:
        white = torch.randn((ROWS, *texture.white_shape(tuple(z.shape[-2:]))), generator=generator)
        noise, mean_there = texture.draw(noise, white, region), texture.mean(z, region)
    text = pipeline.text_encoder(batch.tokens).last_hidden_state
    references = None
    if unet.uses_reference:
        references = unet.encode_reference(
            encode(pipeline.vae, batch.reference), torch.zeros(1, dtype=torch.long), text
        )
    for level in LEVELS:
        alpha = pipeline.scheduler.alphas_cumprod[level]
        relative = z - mean_there
        noised = region * (alpha.sqrt() * relative + (1 - alpha).sqrt() * noise) + (1 - region) * relative
        velocity = unet(
            noised + mean_there,
            torch.full((ROWS,), level),
            text,
            references=references,
            control_mask=batch.control_mask,
            control_present=batch.control_present,
            defect_tokens=batch.defect_tokens,
        )
        if unet.look is not None:
            velocity = unet.look(velocity, noised, region, alpha)
        clean = alpha.sqrt() * noised - (1 - alpha).sqrt() * velocity + mean_there
        image, annotation = split(region * clean + (1 - region) * z)
        yield level, (decode(pipeline.vae, image).float(), image_to_mask(decode(pipeline.vae, annotation).float()))


def contrasts(images, masks):
    grey = (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
    return [value for image, mask in zip(grey, masks, strict=True) for value in contrast(image, mask)]


def mean(values):
    return round(float(np.mean(values)), 3)


if __name__ == "__main__":
    main()
