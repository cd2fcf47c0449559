"""One pass of the sampler over orders that differ in prompt, seed, base, reference and control.

Not in the paper. Decided: a pass is filled up to a fixed size with copies of its last order. With batches of different
sizes the same pair differed by one grey value here and there; with one size neither its place nor its company changed
a bit (on a CPU, 8 orders in 3 orders of drawing).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.make import finished, prepare
from dhdiff_ray.records import Pair, Sample
from dhdiff_ray.serving.batcher import OnStep
from dhdiff_ray.serving.previews import Previews
from dhdiff_ray.serving.questions import Order
from dhdiff_ray.serving.score_maps import looked_at, score_maps

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline


@dataclass(frozen=True)
class Drawn:
    """A pair, and what else was asked of it."""

    pair: Pair
    score_maps: dict[str, dict[str, Any]] | None
    """See ``score_maps.py``; None where nobody asked."""


def draw_pass(
    orders: Sequence[Order],
    pipeline: DHDiffPipeline,
    config: Config,
    samples: Iterable[Sample],
    on_step: OnStep | None = None,
) -> list[Drawn]:
    """Draw orders of equal settings in one pass of ``serve.max_batch_size``.

    Args:
        orders: at most that many.
        pipeline: the category's sampler.
        config: the run's configuration.
        samples: the training images that orders name.
        on_step: called after each step; what it raises ends the pass.
    """
    settings = orders[0].settings
    filled = [*orders, *[orders[-1]] * (config.serve.max_batch_size - len(orders))]
    asked = {name: getattr(settings, name) for name in ("steps", "guidance", "start", "strength", "control")}
    config = config.model_copy(update={"synthesize": config.synthesize.model_copy(update=asked)})
    ready = prepare([o.request for o in filled], config, samples, [o.own for o in filled])
    count = max(1, round(settings.steps * settings.strength)) if settings.start == "base" else settings.steps
    previews = Previews(ready, [o.previews for o in orders], count, config.serve.preview_share)

    def tell(drawing: DHDiffPipeline, number: int, _timestep: int, tensors: Any) -> None:
        if on_step is not None:
            on_step(number + 1, count, previews.look(drawing, number + 1, tensors["latents"]))

    looked = looked_at(count) if any(o.score_maps for o in orders) else False
    made = pipeline(**ready.call, callback_on_step_end=tell, return_score_maps=looked)
    pairs = finished([o.request for o in orders], ready, made)
    return [
        Drawn(pair, score_maps(o.request, i, pipeline, ready, made.score_maps or []) if o.score_maps else None)
        for i, (pair, o) in enumerate(zip(pairs, orders, strict=True))
    ]
