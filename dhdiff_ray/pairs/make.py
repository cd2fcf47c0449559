"""Make the pairs of one unit in one batch: read their inputs, draw them, paste the windows back (section IV-B)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import defect_words
from dhdiff_ray.data.regions import raw_mask, reference_image, window_around
from dhdiff_ray.pairs.start import placed_on, strength_of
from dhdiff_ray.records import Pair, Request, Sample

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.placement import Placed


def open_pipeline(config: Config, folder: Path, gpus: float) -> DHDiffPipeline:
    """Open a trained model for sampling, after comparing its files with their hashes.

    Args:
        config: ``synthesize.precision`` and ``synthesize.compile``; where a foundation under its adapters is.
        folder: a model folder on this machine.
        gpus: share of a GPU that was asked for; 0 stays on the CPU.

    Raises:
        DamagedError: a file is not as it was published, or its foundation is not there.
    """
    import torch

    from dhdiff_ray.pairs.published import open_model

    pipeline = open_model(folder, config)
    if gpus and torch.cuda.is_available():
        pipeline.to("cuda")
    return pipeline.speed_up(config.synthesize.precision, config.synthesize.compile)


@dataclass(frozen=True)
class OwnPictures:
    """A user's own pictures for one pair, at the run's resolution; where one is None the run's is used."""

    base: np.ndarray | None = None  # uint8 (h, w, 3), instead of the request's base
    control: np.ndarray | None = None
    """(h, w), above zero where the defect shall be, instead of the reference's raw mask."""
    reference: np.ndarray | None = None  # uint8 (h, w, 3), instead of the request's reference; comes with its mask
    reference_mask: np.ndarray | None = None
    """(h, w), above zero where the defect of ``reference`` is."""


@dataclass(frozen=True)
class Prepared:
    """One unit, ready to be drawn."""

    call: dict[str, Any]  # what the pipeline is called with
    bases: np.ndarray  # uint8 (b, h, w, 3), the images that the windows are put back into
    references: np.ndarray  # uint8 (b, h, w, 3), what the reference stream is shown
    cuts: list[tuple[slice, slice]]
    """The window of each pair."""


def prepare(
    requests: Sequence[Request], config: Config, samples: Iterable[Sample], given: Sequence[OwnPictures] | None = None
) -> Prepared:
    """Read what one unit is made from, and cut it to the window the model works on.

    A pair's window lies around where its defect shall be, the reference's around its own defect: without a control
    they are one place, but for a start from a reference, which is placed.

    Args:
        requests: of one category.
        config: the run's configuration.
        samples: the training images that requests name by key.
        given: what a user gives for each pair; None for none.
    """
    import torch  # planning needs neither torch nor diffusers, and every driver plans

    from dhdiff_ray.model.latents import to_mask, to_tensor

    by_key = {s.key: s for s in samples}
    side, grid, s = config.data.resolution, config.data.grid, config.synthesize
    given = given or [OwnPictures()] * len(requests)
    lent = [_reference(r, o, by_key, side) for r, o in zip(requests, given, strict=True)]
    cells = [raw_mask(mask, grid) for _, mask in lent]
    shown = [reference_image(i, c, config.train.reference) for (i, _), c in zip(lent, cells, strict=True)]
    bases = [
        read_image(by_key[r.base], side) if o.base is None else o.base for r, o in zip(requests, given, strict=True)
    ]
    placed = _placed(requests, config, given, bases, lent)
    marks = [raw_mask(p.mask, grid) for p in placed] or cells
    drawn = [m if o.control is None else o.control for o, m in zip(given, marks, strict=True)]
    region = [p.region for p in placed] or [raw_mask(d, grid) for d in drawn]
    cuts, own_cuts = ([window_around(r, config.train.window or side) for r in regions] for regions in (region, cells))

    def cut(arrays: Sequence[np.ndarray], where: Sequence[tuple[slice, slice]] = cuts) -> np.ndarray:
        return np.stack([array[at] for array, at in zip(arrays, where, strict=True)])

    controlled = s.control or any(o.control is not None for o in given)
    call = {
        "prompt": [r.prompt for r in requests],
        "defect": [defect_words(r.defect) for r in requests],
        "generator": [torch.Generator().manual_seed(r.seed) for r in requests],
        "reference": None if config.train.reference == "none" else to_tensor(cut(shown, own_cuts)),
        "base": to_tensor(cut(bases)),
        "raw_mask": to_mask(cut(region)),
        "control_mask": to_mask(cut(drawn)) if controlled else None,
        "num_inference_steps": s.steps,
        "guidance_scale": s.guidance,
        "start": s.start,
        "strength": [strength_of(r, s) for r in requests],
        "background": s.background,
        "fade": s.fade,
        "reference_noise": config.train.reference_noise,
        "output_type": "pt",
    }
    if placed:
        call["placed"] = to_tensor(cut([p.image for p in placed]))
        call["placed_mask"] = to_mask(cut([p.mask for p in placed]))
    return Prepared(call, np.stack(bases), np.stack(shown), cuts)


def make(
    requests: Sequence[Request], pipeline: DHDiffPipeline, config: Config, samples: Iterable[Sample]
) -> list[Pair]:
    """Make the pairs of one unit in one batch, in the order of the requests; see :func:`prepare`."""
    ready = prepare(requests, config, samples)
    return finished(requests, ready, pipeline(**ready.call))


def finished(requests: Sequence[Request], ready: Prepared, made: Any) -> list[Pair]:
    """Paste the windows that the pipeline drew back into whole images."""
    images = (made.images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    masks = (made.masks[:, 0] * 255).byte().cpu().numpy()
    pairs = []
    for i, request in enumerate(requests):
        image = ready.bases[i].copy()
        mask = np.zeros(image.shape[:2], np.uint8)
        image[ready.cuts[i]], mask[ready.cuts[i]] = images[i], masks[i]
        pairs.append(Pair(request, image, mask))
    return pairs


def _placed(
    requests: Sequence[Request],
    config: Config,
    given: Sequence[OwnPictures],
    bases: Sequence[np.ndarray],
    lent: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[Placed]:
    """The placed defect that each pair starts from; empty unless ``synthesize.start = reference``."""
    if config.synthesize.start != "reference":
        return []
    each = zip(requests, given, bases, lent, strict=True)
    return [placed_on(base, one, request, config, own.control) for request, own, base, one in each]


def _reference(
    request: Request, given: OwnPictures, by_key: Mapping[str, Sample], side: int
) -> tuple[np.ndarray, np.ndarray]:
    """The reference image (h, w, 3) and its mask (h, w)."""
    if given.reference is not None and given.reference_mask is not None:
        return given.reference, given.reference_mask
    sample = by_key[request.reference]
    return read_image(sample, side), read_mask(sample, side)
