"""The sampler behind the endpoint: orders in, pairs out, with a few models loaded at a time.

Not in the paper. Decided: a pass is filled up to a fixed size with copies of its last order. With batches of different
sizes the same pair differed by one grey value here and there; with one size neither its place nor its company changed
a bit (on a CPU, 8 orders in 3 orders of drawing). The models held are our own affair in place of
``serve.multiplexed``'s, which takes a model from under the request that uses it; one pass is drawn at a time, so none
is in use when another one is loaded.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dhdiff_ray.config import Config
from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.pairs.make import finished, open_pipeline, prepare
from dhdiff_ray.records import Pair
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.serving.batcher import OnStep
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.drawn import DrawnPair, ScoreMap
from dhdiff_ray.serving.looks import Previews, score_maps, steps_to_keep
from dhdiff_ray.serving.orders import Order, orders_of
from dhdiff_ray.serving.questions import PairQuery, RefusedError

if TYPE_CHECKING:
    from torch import Tensor

    from dhdiff_ray.model.pipeline import DHDiffPipeline


LOG = logging.getLogger("dhdiff_ray.serve")


class SamplerCore:
    """Draws with the models of one run; knows nothing of Ray or HTTP.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: the run has no split or no trained model of its split.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.catalogue = config, Catalogue(config)
        self._held: OrderedDict[tuple[str, str], DHDiffPipeline] = OrderedDict()
        """Pipelines by category and hash of their weights, the least recently used first."""
        self._turn = threading.Lock()
        """A scheduler counts its steps, so one pass is drawn at a time."""

    def orders(self, query: PairQuery) -> list[Order]:
        """The orders of a request, see ``orders_of``."""
        return orders_of(query, self.catalogue)

    def load(self, category: str) -> DHDiffPipeline:
        """The category's pipeline.

        Raises:
            RefusedError: its files are not as they were published, or its foundation is not there.
        """
        try:
            with self.catalogue.run.folder.fetched(f"models/{category}") as model:
                pipeline = open_pipeline(self.config, model, self.config.serve.gpus_per_replica)
        except DamagedError as error:
            LOG.error("%s", error)
            what = f"the model of {category!r} is damaged, or what it is adapters over is not there"
            raise RefusedError(503, f"{what}; the server's log names it") from None
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def held(self, category: str) -> DHDiffPipeline:
        """The category's pipeline, loaded if need be; the least recently used one is dropped first."""
        key = category, self.catalogue.facts_of(category)["weights_sha256"]  # a model trained anew is another one
        if key not in self._held:
            while len(self._held) >= self.config.serve.models_held:
                self._held.popitem(last=False)
            self._held[key] = self.load(category)
        self._held.move_to_end(key)
        return self._held[key]

    def draw(self, orders: Sequence[Order], on_step: OnStep | None = None) -> list[DrawnPair]:
        """One pass.

        Args:
            orders: at most ``serve.max_batch_size``, with the same settings.
            on_step: called after each step; what it raises ends the pass.
        """
        import torch

        from dhdiff_ray.model.courses import steps_of

        torch.set_num_threads(self.config.synthesize.cpus_per_worker)
        torch.set_flush_denormal(True)  # of the thread that samples
        category, settings = orders[0].shared
        filled = [*orders, *[orders[-1]] * (self.config.serve.max_batch_size - len(orders))]
        config = self.config.model_copy(update={"synthesize": settings})
        samples = self.catalogue.samples.values()
        ready = prepare([o.request for o in filled], config, samples, [o.pictures for o in filled])
        strengths = [1.0] if settings.start == "noise" else ready.call["strength"]
        own_steps = [steps_of(settings.steps, strength) for strength in strengths] * (len(filled) // len(strengths))
        steps = max(own_steps)  # pairs with fewer join later, and their maps are of their own steps
        seen = [[steps - own + step for step in steps_to_keep(own)] for own in own_steps]
        kept = sorted({step for o, own in zip(orders, seen, strict=False) if o.score_maps for step in own})
        with self._turn:
            pipeline = self.held(category)
            previews = Previews(ready, [o.previews for o in orders], steps, config.serve.preview_share)

            def after_step(pipeline: DHDiffPipeline, number: int, _timestep: int, tensors: dict[str, Tensor]) -> None:
                if on_step is not None:
                    on_step(number + 1, steps, previews.after_step(pipeline, number + 1, tensors["latents"]))

            made = pipeline(**ready.call, callback_on_step_end=after_step, return_score_maps=kept)
            pairs, maps = finished([o.request for o in orders], ready, made), made.score_maps or []
            drawn = []
            for place, (pair, o) in enumerate(zip(pairs, orders, strict=True)):
                own = [maps[kept.index(step)] for step in seen[place]] if o.score_maps else []
                drawn.append(
                    _drawn(pair, o, score_maps(o.request, place, pipeline, ready, own) if o.score_maps else None)
                )
            return drawn

    def pairs(self, query: PairQuery) -> list[DrawnPair]:
        """The pairs of one request, drawn in this thread."""
        orders, size = self.orders(query), self.config.serve.max_batch_size
        return [pair for at in range(0, len(orders), size) for pair in self.draw(orders[at : at + size])]

    def warm_up(self) -> None:
        """Load as many models as are held and draw one step with each, so that the first request is not slow."""
        for category, facts in sorted(self.catalogue.facts.items())[: self.config.serve.models_held]:
            self.pairs(PairQuery(category=category, defect=facts["defects"][0], steps=1))


def _drawn(pair: Pair, order: Order, maps: dict[str, ScoreMap] | None) -> DrawnPair:
    r = order.request
    reference = r.reference if order.pictures.reference is None else None
    base = r.base if order.pictures.base is None else None
    image, mask = png_bytes(pair.image), png_bytes(pair.mask)
    return DrawnPair(image, mask, r.category, r.defect, r.seed, r.prompt, reference, base, maps)
