"""Plan requests and make pairs: the same pairs on any number of workers (section IV-B; DESIGN: contracts on disk).

Decided: a request names a normal training image as base and a training anomaly as reference, drawn from its own seed;
requests are cut into fixed shards made in one batch each, so that no number of workers can change a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import raw_mask, reference_image, window_around
from dhdiff_ray.data.split import Split
from dhdiff_ray.records import Pair, Request, Sample, pair_seed

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline


def plan(config: Config, split: Split, category: str) -> list[Request]:
    """Every request of one category: ``synthesize.pairs_per_defect`` for each defect that was trained on.

    A longer plan begins with the shorter one, so that asking for more keeps what is there.
    """
    own = split.category(category)
    bases = sorted(s.key for s in own.train if s.is_good)
    requests = []
    for defect in sorted({s.defect for s in own.train if not s.is_good}):
        references = sorted(s.key for s in own.train if s.defect == defect)
        for index in range(config.synthesize.pairs_per_defect):
            seed = pair_seed(config.run.seed, category, defect, index)
            draw = random.Random(seed)
            requests.append(
                Request(
                    category=category,
                    defect=defect,
                    index=index,
                    seed=seed,
                    prompt=prompt(category, defect),
                    base=draw.choice(bases),
                    reference=draw.choice(references),
                )
            )
    return requests


def shards(requests: Sequence[Request], size: int) -> list[tuple[Request, ...]]:
    """Fixed units of work: runs of ``size`` requests of one defect, the last one shorter."""
    units: list[tuple[Request, ...]] = []
    for defect in dict.fromkeys(r.defect for r in requests):
        same = [r for r in requests if r.defect == defect]
        units += [tuple(same[i : i + size]) for i in range(0, len(same), size)]
    return units


@dataclass(frozen=True)
class Prepared:
    """One unit, ready to be drawn."""

    call: dict[str, Any]
    """What the pipeline is called with."""
    bases: np.ndarray
    """uint8 (b, h, w, 3), the images that the windows are put back into."""
    references: np.ndarray
    """uint8 (b, h, w, 3), what the reference stream is shown."""
    cuts: list[tuple[slice, slice]]
    """The window of each pair."""


def prepare(
    requests: Sequence[Request],
    config: Config,
    samples: Sequence[Sample],
    *,
    base: np.ndarray | None = None,
    control: np.ndarray | None = None,
) -> Prepared:
    """Read what one unit is made from, and cut it to the window the model works on; arguments as for :func:`make`."""
    import torch  # planning needs neither torch nor diffusers, and every driver plans

    from dhdiff_ray.model.latents import to_mask, to_tensor

    by_key = {s.key: s for s in samples}
    side, s = config.data.resolution, config.synthesize
    references = np.stack([read_image(by_key[r.reference], side) for r in requests])
    cells = np.stack([raw_mask(read_mask(by_key[r.reference], side), config.data.grid) for r in requests])
    shown = np.stack([reference_image(i, c, config.train.reference) for i, c in zip(references, cells, strict=True)])
    if base is None:
        bases = np.stack([read_image(by_key[r.base], side) for r in requests])
    else:
        bases = np.stack([base] * len(requests))
    region = drawn = cells
    if control is not None:
        region = np.stack([raw_mask(control, config.data.grid)] * len(requests))
        drawn = np.stack([control] * len(requests))
    cuts = [window_around(r, config.train.window or side) for r in region]

    def cut(arrays: np.ndarray) -> np.ndarray:
        return np.stack([a[c] for a, c in zip(arrays, cuts, strict=True)])

    call = {
        "prompt": [r.prompt for r in requests],
        "defect": [defect_words(r.defect) for r in requests],
        "generator": [torch.Generator().manual_seed(r.seed) for r in requests],
        "reference": None if config.train.reference == "none" else to_tensor(cut(shown)),
        "base": to_tensor(cut(bases)),
        "raw_mask": to_mask(cut(region)),
        "control_mask": to_mask(cut(drawn)) if s.control or control is not None else None,
        "num_inference_steps": s.steps,
        "guidance_scale": s.guidance,
        "start": s.start,
        "strength": s.strength,
        "background": s.background,
        "reference_noise": config.train.reference_noise,
        "output_type": "pt",
    }
    return Prepared(call, bases, shown, cuts)


def make(
    requests: Sequence[Request],
    pipeline: DHDiffPipeline,
    config: Config,
    samples: Sequence[Sample],
    *,
    base: np.ndarray | None = None,
    control: np.ndarray | None = None,
) -> list[Pair]:
    """Make the pairs of one unit in one batch.

    Args:
        requests: of one category.
        pipeline: the category's sampler.
        config: the run's configuration.
        samples: the training images that requests name by key.
        base: a user's own product image, uint8 (h, w, 3), instead of the requests' bases.
        control: a user's own control mask (h, w), above zero where the defect shall be, instead of the reference's.

    Returns:
        Pairs in the order of the requests.
    """
    ready = prepare(requests, config, samples, base=base, control=control)
    return finished(requests, ready, pipeline(**ready.call))


def finished(requests: Sequence[Request], ready: Prepared, made: Any) -> list[Pair]:
    """What the pipeline drew, put back into whole images."""
    images = (made.images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    masks = (made.masks[:, 0] * 255).byte().cpu().numpy()
    pairs = []
    for i, request in enumerate(requests):
        image = ready.bases[i].copy()
        mask = np.zeros(image.shape[:2], np.uint8)
        image[ready.cuts[i]], mask[ready.cuts[i]] = images[i], masks[i]
        pairs.append(Pair(request, image, mask))
    return pairs
