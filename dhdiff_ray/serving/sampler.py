"""The sampler behind the endpoint: one run's models and what they can be asked; knows nothing of Ray or HTTP.

Not in the paper. Decided: a pair is a function of (run, category, defect, seed) and what the user adds; base and
reference are drawn from the seed as ``plan`` draws them, and every pass has the same size, so the same
question always has the same bytes as answer.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import nearest
from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.images import read_image, shrink_mask
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import drawn_control
from dhdiff_ray.data.split import Split
from dhdiff_ray.pairs.make import Own, open_pipeline
from dhdiff_ray.pairs.plan import draw_request
from dhdiff_ray.records import GOOD, Request, Sample
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import check_same_split
from dhdiff_ray.serving.batcher import OnStep
from dhdiff_ray.serving.draw import draw_pass
from dhdiff_ray.serving.model_cache import ModelCache
from dhdiff_ray.serving.questions import Ask, Order, RefusedError, Settings, bools, picture, rgb

LOG = logging.getLogger("dhdiff_ray.serve")
LOOK_SECONDS = 2.0
"""How old the list of models may be before the run folder is looked at again."""


class SamplerCore:
    """Answers questions with the models of one run.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: the run has no split or no trained model of its split.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = RunFolder.of(config.run.storage, config.run.name)
        if not self.folder.exists("split.json"):
            raise ValueError(f"{self.folder.uri} is not a trained run; train first: dhdiff-ray submit train --run NAME")
        self.split = Split.from_json(self.folder.read_json("split.json"))
        self.by_key = {sample.key: sample for sample in self.split.train}
        self._looked = 0.0
        self._facts: dict[str, dict[str, Any]] = {}
        self._foreign: dict[str, str] = {}
        self._judged: dict[tuple[str, str | None], str] = {}
        self._listed: dict[tuple[str, str], list[str]] = {}
        self.cache = ModelCache(lambda key: self.load(key[0]), config.serve.models_held)
        self._turn = threading.Lock()
        """A scheduler counts its steps, so one pass is drawn at a time."""
        if not self.facts:
            if self._foreign:
                raise ValueError(next(iter(self._foreign.values())))
            raise ValueError(f"{self.folder.uri} has no trained model; go on with: dhdiff-ray submit train --resume")

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What is known of each trained category; models that were trained since are found without a restart.

        A model of another split is left out, and the others are served: it learned from images that are held out
        here, and the bases and references of this split may be what it is tested on.
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            marks = [f for f in self.folder.files("models") if f.count("/") == 2 and f.endswith("/dhdiff.json")]
            found = {mark.split("/")[1]: self.folder.read_json(mark) for mark in marks}
            foreign = {category: told for category, facts in found.items() if (told := self._other_split(facts))}
            for category in foreign.keys() - self._foreign.keys():
                LOG.warning("not served: %s", foreign[category])
            self._facts = {category: facts for category, facts in found.items() if category not in foreign}
            self._foreign, self._looked = foreign, time.monotonic()
        return self._facts

    def models(self) -> list[dict[str, Any]]:
        """What can be asked for, and the limits."""
        s = self.config.serve
        return [
            {
                "category": category,
                "defects": facts["defects"],
                "resolution": facts["resolution"],
                "weights_sha256": facts["weights_sha256"],
                "max_n": s.max_n,
            }
            for category, facts in sorted(self.facts.items())
        ]

    def model(self, category: str) -> dict[str, Any]:
        """One category in full: the model's facts, its scores if the run has some, defaults and limits.

        Raises:
            RefusedError: 404, no such category.
        """
        facts, c = self._known(category), self.config
        scores = self.folder.read_json("scores.json") if self.folder.exists("scores.json") else {}
        anomalies = {d: len(self._keys(category, d)) for d in facts["defects"]}
        return {
            **facts,
            "scores": [score for score in scores.get("scores", []) if score.get("category") == category],
            "pair_alignment": scores.get("pair_alignment", {}).get(category),
            "grid": c.data.grid,
            "bases": len(self._keys(category, GOOD)),
            "references": anomalies,
            "defaults": {name: getattr(c.synthesize, name) for name in ("steps", "guidance", "background", "start")},
            "pass_size": c.serve.max_batch_size,
            "limits": {name: getattr(c.serve, name) for name in ("max_n", "max_steps", "max_side", "max_body_mb")},
        }

    def base(self, category: str, number: int) -> bytes:
        """One of the run's normal images at the model's resolution, as PNG.

        Raises:
            RefusedError: 404, no such category or image.
        """
        self._known(category)
        sample = self.by_key[self._numbered("base_number", category, GOOD, number)]
        return png_bytes(read_image(sample, self.config.data.resolution))

    def orders(self, ask: Ask) -> list[Order]:
        """What each pair is made from; refuses what cannot be made, before a model is loaded.

        Raises:
            RefusedError: 404 for an unknown category or defect, 422 for anything else that does not fit.
        """
        s = self.config.synthesize
        defect = self._defect(ask)
        self._check_numbers(ask)
        base, control = self._place(ask)
        reference, reference_mask = self._reference(ask, control is not None)
        settings = Settings(
            ask.category,
            ask.steps or s.steps,
            s.guidance if ask.guidance is None else ask.guidance,
            s.start if ask.strength is None else "base",
            s.strength if ask.strength is None else ask.strength,
            s.control or control is not None,
        )
        bases, references = self._keys(ask.category, GOOD), self._keys(ask.category, defect)
        orders = []
        for index in range(ask.n):
            base_key, reference_key = draw_request(ask.seed + index, bases, references)
            if ask.base_number is not None:
                base_key = self._numbered("base_number", ask.category, GOOD, ask.base_number)
            if ask.reference_number is not None:
                reference_key = self._numbered("reference_number", ask.category, defect, ask.reference_number)
            words = ask.prompt or prompt(ask.category, defect)
            request = Request(ask.category, defect, index, ask.seed + index, words, base_key, reference_key)
            own = Own(base, control, reference, reference_mask)
            orders.append(Order(request, settings, own, ask.previews, ask.score_maps))
        return orders

    def load(self, category: str) -> Any:
        """The category's pipeline."""
        model, gpus = self.folder.local(f"models/{category}"), self.config.serve.gpus_per_replica
        pipeline = open_pipeline(self.config, model, gpus)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, orders: Sequence[Order], on_step: OnStep | None = None) -> list[dict[str, Any]]:
        """Pairs as base64 PNGs with what they were made from; the orders share their settings.

        Args:
            orders: at most ``serve.max_batch_size``.
            on_step: called after each step; what it raises ends the pass.
        """
        import torch

        torch.set_num_threads(self.config.synthesize.cpus_per_worker)
        torch.set_flush_denormal(True)  # of the thread that samples
        category = orders[0].settings.category
        key = category, self._known(category)["weights_sha256"]  # a model trained anew is another one
        with self._turn, self.cache.using(key) as pipeline:
            drawn = draw_pass(orders, pipeline, self.config, self.by_key.values(), on_step)
        answers = []
        for one, order in zip(drawn, orders, strict=True):
            facts = {n: getattr(order.request, n) for n in ("category", "defect", "seed", "prompt")}
            facts["reference"] = order.request.reference if order.own.reference is None else None
            facts["base"] = order.request.base if order.own.base is None else None
            maps = {} if one.score_maps is None else {"score_maps": one.score_maps}
            answers.append({"image": _text(one.pair.image), "mask": _text(one.pair.mask), **facts, **maps})
        return answers

    def pairs(self, ask: Ask) -> list[dict[str, Any]]:
        """The answer to one question, drawn in this thread.

        Raises:
            RefusedError: see ``orders``.
        """
        orders, size = self.orders(ask), self.config.serve.max_batch_size
        return [pair for at in range(0, len(orders), size) for pair in self.draw(orders[at : at + size])]

    def warm_up(self) -> None:
        """Load as many models as are held and draw one step with each, so that the first request is not slow."""
        for category, facts in sorted(self.facts.items())[: self.config.serve.models_held]:
            self.draw(self.orders(Ask(category=category, defect=facts["defects"][0], steps=1)))

    def _other_split(self, facts: dict[str, Any]) -> str:
        """What is wrong with a model that was made under another split; empty for the others."""
        key = facts["category"], facts.get("split_digest")
        if key not in self._judged:
            try:
                check_same_split([facts], self.split, "the model")
                self._judged[key] = ""
            except ValueError as error:
                self._judged[key] = str(error)
        return self._judged[key]

    def _known(self, category: str) -> dict[str, Any]:
        known = self.facts
        if category in self._foreign:
            raise RefusedError(409, self._foreign[category])
        if category not in known:
            raise RefusedError(404, _unknown("category", category, sorted(known)))
        return known[category]

    def _defect(self, ask: Ask) -> str:
        defects = self._known(ask.category)["defects"]
        if ask.defect is not None:
            if ask.defect not in defects:
                raise RefusedError(404, _unknown("defect", ask.defect, defects))
            return ask.defect
        if ask.prompt is None:
            raise RefusedError(422, f"say which defect: one of {', '.join(defects)}; or name one in a prompt")
        told = f" {' '.join(ask.prompt.lower().split())} "
        named = [defect for defect in defects if f" {defect_words(defect)} " in told]
        if not named:
            raise RefusedError(422, f"the prompt names no defect of {ask.category}; use one of: {', '.join(defects)}")
        return max(named, key=len)

    def _check_numbers(self, ask: Ask) -> None:
        s = self.config.serve
        if ask.n > s.max_n:
            raise RefusedError(422, f"n = {ask.n} is more than {s.max_n} pairs; ask several times")
        if ask.steps is not None and ask.steps > s.max_steps:
            raise RefusedError(422, f"steps = {ask.steps} is more than {s.max_steps}; ask for fewer")
        if ask.seed + ask.n > 2**63:
            raise RefusedError(422, f"seed + n = {ask.seed + ask.n} must not pass 2**63")
        given = [name for name in ("control_mask", "points", "boxes") if getattr(ask, name) is not None]
        if len(given) > 1:
            raise RefusedError(422, f"{' and '.join(given)} say the same thing; give one of them")
        for own, number in (("base", "base_number"), ("reference", "reference_number")):
            if getattr(ask, own) is not None and getattr(ask, number) is not None:
                raise RefusedError(422, f"{own} and {number} say the same thing; give one of them")
        if ask.reference_mask is not None and ask.reference is None:
            raise RefusedError(422, "reference_mask belongs to reference; send that too")

    def _place(self, ask: Ask) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The user's base (h, w, 3) and control mask (h, w), each at the model's resolution."""
        side, limit = self.config.data.resolution, self.config.serve.max_side
        base = control = None
        seen = (side, side)
        if ask.base is not None:
            opened = picture("base", ask.base, limit)
            seen = opened.size
            base = rgb(opened, side)
        if ask.control_mask is not None:
            opened = picture("control_mask", ask.control_mask, limit)
            if ask.base is not None and opened.size != seen:
                raise RefusedError(422, f"control_mask is {_size(opened.size)} pixels, base is {_size(seen)}")
            control = shrink_mask(bools(opened), side)
            if not control.any():
                raise RefusedError(422, "control_mask is empty; pixels above zero say where the defect shall be")
        if ask.points is not None or ask.boxes is not None:
            try:
                control = drawn_control(ask.points or (), ask.boxes or (), side, self.config.data.grid, seen)
            except ValueError as error:
                raise RefusedError(422, str(error)) from None
        return base, control

    def _reference(self, ask: Ask, placed: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
        if ask.reference is None:
            return None, None
        side, limit = self.config.data.resolution, self.config.serve.max_side
        opened = picture("reference", ask.reference, limit)
        if ask.reference_mask is None:
            if not placed:
                raise RefusedError(
                    422, "where is the defect? send reference_mask, or control_mask, points or boxes for the new one"
                )
            return rgb(opened, side), np.full((side, side), 255, np.uint8)
        mask = picture("reference_mask", ask.reference_mask, limit)
        if mask.size != opened.size:
            raise RefusedError(422, f"reference_mask is {_size(mask.size)} pixels, reference is {_size(opened.size)}")
        small = shrink_mask(bools(mask), side)
        if not small.any():
            raise RefusedError(422, "reference_mask is empty; pixels above zero say where its defect is")
        return rgb(opened, side), small

    def _keys(self, category: str, defect: str) -> list[str]:
        if (category, defect) not in self._listed:
            own: Sequence[Sample] = self.split.category(category).train
            self._listed[category, defect] = sorted(sample.key for sample in own if sample.defect == defect)
        return self._listed[category, defect]

    def _numbered(self, field: str, category: str, defect: str, number: int) -> str:
        keys = self._keys(category, defect)
        if not 0 <= number < len(keys):
            raise RefusedError(404, f"{field} = {number}: there are {len(keys)}, counted from 0")
        return keys[number]


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    return f"no {what} {name!r}{nearest(name, list(known))}; there are: {', '.join(known)}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _text(array: np.ndarray) -> str:
    return base64.b64encode(png_bytes(array)).decode()
