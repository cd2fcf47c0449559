"""Does a trained run read how bright the surroundings of a raw mask are, and at which noise does it begin to?

    python -m benchmarks.surroundings STORAGE RUN [CATEGORY] [--model FOLDER]

Made for runs with a clean reference. Real training anomalies are noised inside their raw mask; from each noise level
the clean image is predicted once. Told are, in grey values of 255, the error of the predicted mean brightness inside,
and the slope of that brightness on the one of the ring around the raw mask, beside the slope that the real images
have. A slope of 0 at pure noise means that the surroundings are not looked at: a step in brightness along the raw
mask's edge.
"""

import argparse
import json

import torch
from diffusers import DDPMScheduler
from torch.nn import functional

from benchmarks.trained_run import opened
from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.domains import join, split
from dhdiff_ray.model.latents import decode, encode, latent_shape, mask_to_image
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.prior import surroundings_mean
from dhdiff_ray.training.batches import BatchSource

LEVELS = (999, 900, 800, 600)
BATCHES, ROWS = 12, 4
RING = 8
"""Its width in pixels."""


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("storage")
    arguments.add_argument("run")
    arguments.add_argument("category", nargs="?")
    arguments.add_argument("--model", help="a model folder other than the run's")
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    config, folder, held = opened(asked.storage, asked.run)
    train = config.train.model_copy(update={"normal_fraction": 0.0, "window": 0, "clean_background": 1.0})
    config = config.model_copy(update={"train": train})
    category = asked.category or held.categories[0]
    pipeline = DHDiffPipeline.from_pretrained(asked.model or folder.local(f"models/{category}"))
    samples = [s for s in held.category(category).train if not s.is_good]
    samples, images, masks = read_many(samples, config.data.resolution, False, print)
    source = BatchSource(config, samples, images, masks, pipeline.tokenizer)
    told = looked_at(pipeline, source)
    print(json.dumps({"run": asked.run, "category": category, "images": BATCHES * ROWS, "levels": told}, indent=2))


@torch.no_grad()
def looked_at(pipeline, source):
    """Figures per noise level."""
    alphas = DDPMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod
    seen = {level: [] for level in LEVELS}
    for number in range(BATCHES):
        batch = source.draw(number, ROWS)
        z = join(encode(pipeline.vae, batch.image), encode(pipeline.vae, mask_to_image(batch.mask)))
        region = functional.max_pool2d(batch.regions, latent_shape(pipeline.vae)[1])
        region = join(region, region)
        radius = (pipeline.config["defaults"] or {}).get("prior_mean_radius")
        mean = surroundings_mean(z, region, radius) if radius else torch.zeros_like(z)
        text = pipeline.text_encoder(batch.tokens).last_hidden_state
        references = None
        if pipeline.unet.uses_reference:
            z_reference = encode(pipeline.vae, batch.reference)
            references = pipeline.unet.encode_reference(z_reference, torch.zeros(1, dtype=torch.long), text)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(number))
        for level in LEVELS:
            signal, spread = alphas[level].sqrt(), (1 - alphas[level]).sqrt()
            noised = region * (signal * (z - mean) + spread * noise) + (1 - region) * (z - mean)
            predicted = pipeline.unet(
                noised,
                torch.full((ROWS,), level),
                text,
                references=references,
                control_mask=batch.control_mask,
                control_present=batch.control_present,
                defect_tokens=batch.defect_tokens,
            )
            if pipeline.scheduler.config["prediction_type"] == "v_prediction":
                clean = signal * noised - spread * predicted
            else:
                clean = (noised - spread * predicted) / signal
            clean = split(region * (clean + mean) + (1 - region) * z)[0]
            seen[level].append(brightness(batch.image, decode(pipeline.vae, clean).float(), batch.regions))
    return {str(level): figures(torch.cat(rows)) for level, rows in seen.items()}


def brightness(real, predicted, inside):
    """Rows of mean grey values: real inside, predicted inside, real in the ring; images without a ring are left out."""
    ring = functional.max_pool2d(inside, 2 * RING + 1, 1, RING) - inside  # (b, 1, h, w)
    means = [
        ((image / 2 + 0.5).clamp(0, 1).mean(1, keepdim=True) * where).sum((1, 2, 3)) / where.sum((1, 2, 3)) * 255
        for image, where in ((real, inside), (predicted, inside), (real, ring))
    ]
    return torch.stack(means, 1)[ring.sum((1, 2, 3)) > 0]


def figures(rows):
    inside, predicted, ring = rows.T

    def slope(values):
        off = ring - ring.mean()
        return round(float(((values - values.mean()) * off).sum() / off.square().sum()), 3)

    return {
        "images": len(rows),
        "error": round(float((predicted - inside).square().mean().sqrt()), 2),
        "spread": round(float(inside.std()), 2),
        "slope": slope(predicted),
        "real_slope": slope(inside),
    }


if __name__ == "__main__":
    main()
