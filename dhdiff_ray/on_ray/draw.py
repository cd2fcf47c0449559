"""One pass of the sampler over orders that differ in prompt, seed, base, reference and control.

Not in the paper. Decided: a pass is filled up to a fixed size with copies of its last order. With batches of different
sizes the same pair differed by one grey value here and there; with one size neither its place nor its company changed
a bit (on a CPU, 8 orders in 3 orders of drawing). A reference is cut around its own defect, which need not lie where
the new one shall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import defect_words
from dhdiff_ray.data.regions import raw_mask, reference_image, window_around
from dhdiff_ray.on_ray.asks import Order
from dhdiff_ray.on_ray.batcher import OnStep
from dhdiff_ray.records import Pair, Sample

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline


def draw_pass(
    orders: Sequence[Order],
    pipeline: DHDiffPipeline,
    config: Config,
    samples: Mapping[str, Sample],
    on_step: OnStep | None = None,
) -> list[Pair]:
    """Draw orders of equal settings in one pass of ``serve.max_batch_size``.

    Args:
        orders: at most that many.
        pipeline: the category's sampler.
        config: the run's configuration.
        samples: the training images that orders name, by key.
        on_step: called after each step; what it raises ends the pass.
    """
    import torch

    from dhdiff_ray.model.latents import to_mask, to_tensor

    filled = [*orders, *[orders[-1]] * (config.serve.max_batch_size - len(orders))]
    side, grid, settings = config.data.resolution, config.data.grid, orders[0].settings
    bases, shown, cells = zip(*(_pictures(order, config, samples) for order in filled), strict=True)
    regions = [c if o.control is None else raw_mask(o.control, grid) for o, c in zip(filled, cells, strict=True)]
    drawn = [r if o.control is None else o.control for o, r in zip(filled, regions, strict=True)]
    window = config.train.window or side
    cuts = [window_around(region, window) for region in regions]
    own_cuts = [window_around(c, window) for c in cells]

    def cut(arrays: Sequence[np.ndarray], where: Sequence[tuple[slice, slice]]) -> np.ndarray:
        return np.stack([array[at] for array, at in zip(arrays, where, strict=True)])

    count = max(1, round(settings.steps * settings.strength)) if settings.start == "base" else settings.steps

    def tell(_pipeline: Any, number: int, _timestep: int, _tensors: Any) -> None:
        if on_step is not None:
            on_step(number + 1, count)

    made = pipeline(
        [o.request.prompt for o in filled],
        defect=[defect_words(o.request.defect) for o in filled],
        generator=[torch.Generator().manual_seed(o.request.seed) for o in filled],
        reference=None if config.train.reference == "none" else to_tensor(cut(shown, own_cuts)),
        base=to_tensor(cut(bases, cuts)),
        raw_mask=to_mask(cut(regions, cuts)),
        control_mask=to_mask(cut(drawn, cuts)) if settings.control else None,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        start=settings.start,
        strength=settings.strength,
        background=config.synthesize.background,
        reference_noise=config.train.reference_noise,
        output_type="pt",
        callback_on_step_end=tell,
    )
    images = (made.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    masks = (made.masks[:, 0] * 255).to(torch.uint8).cpu().numpy()
    pairs = []
    for i, order in enumerate(orders):
        image, mask = bases[i].copy(), np.zeros((side, side), np.uint8)
        image[cuts[i]], mask[cuts[i]] = images[i], masks[i]
        pairs.append(Pair(order.request, image, mask))
    return pairs


def _pictures(order: Order, config: Config, samples: Mapping[str, Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base (h, w, 3), reference as the network sees it (h, w, 3), and the reference's raw mask (h, w)."""
    side = config.data.resolution
    base = read_image(samples[order.request.base], side) if order.base is None else order.base
    if order.reference is None or order.reference_mask is None:
        sample = samples[order.request.reference]
        reference, mask = read_image(sample, side), read_mask(sample, side)
    else:
        reference, mask = order.reference, order.reference_mask
    cells = raw_mask(mask, config.data.grid)
    return base, reference_image(reference, cells, config.train.reference), cells
