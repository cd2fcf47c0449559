"""What the endpoint offers: one run's models, and the real images that a pair can be made from.

Not in the paper. Decided: models that were trained since are served without a restart; a model of another split is
left out, since it learned from images that are held out here, and this split's bases may be what it is tested on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import nearest
from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.images import read_image
from dhdiff_ray.records import GOOD
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.run import SPLIT, Run
from dhdiff_ray.serving.questions import RefusedError
from dhdiff_ray.training.checkpoint import model_facts

LOG = logging.getLogger("dhdiff_ray.serve")
FRESH_SECONDS = 2.0
"""Seconds for which a list of models counts before the run folder is listed again."""
LISTING_SHARE = 20
"""A slow listing is repeated only after this many times its duration, so it takes a twentieth of the time at most."""


class Catalogue:
    """The models and images of one run; unknown ones are refused with 404, a model of another split with 409.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: the run has no split or no trained model of its split.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.run = config, Run(config)
        uri = self.run.folder.uri
        if not self.run.folder.exists(SPLIT):
            raise ValueError(f"{uri} is not a trained run; train first: dhdiff-ray submit train --run NAME")
        self.samples = {sample.key: sample for sample in self.run.split.train}
        self._read_at, self._fresh_seconds = 0.0, FRESH_SECONDS
        self._read: dict[str, tuple[Any, dict[str, Any]]] = {}
        """What was read of each model, and the size and date its file had."""
        self._facts: dict[str, dict[str, Any]] = {}
        self._left_out: dict[str, str] = {}
        """Categories whose model is of another split -> why it is left out."""
        self._fault = cache(self._split_fault)
        self._keys: dict[tuple[str, str], list[str]] = {}
        if not self.facts:
            if self._left_out:
                raise ValueError(next(iter(self._left_out.values())))
            raise ValueError(f"{uri} has no trained model; go on with: dhdiff-ray submit train --resume")

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Each category that is served -> recorded facts of its model."""
        if time.monotonic() - self._read_at > self._fresh_seconds:
            folder, begun = self.run.folder, time.monotonic()
            facts, damaged = dict[str, dict[str, Any]](), dict[str, str]()
            for file, stamp in folder.stamps("models").items():
                _, category, *name = file.split("/")
                if name != ["dhdiff.json"]:
                    continue
                try:
                    if self._read.get(category, (None,))[0] != stamp:  # else it is as it was read
                        self._read[category] = stamp, model_facts(folder, category)
                    facts[category] = self._read[category][1]
                except DamagedError as error:
                    damaged[category] = f"the model of {category!r} is damaged; the server's log names the file"
                    if category not in self._left_out:
                        LOG.warning("%s", error)
            left_out = damaged | {
                category: fault
                for category, row in facts.items()
                if (fault := self._fault(row["category"], row.get("split_digest")))
            }
            for category in left_out.keys() - self._left_out.keys():
                LOG.warning("not served: %s", left_out[category])
            self._facts = {category: row for category, row in facts.items() if category not in left_out}
            self._left_out, self._read_at = left_out, time.monotonic()
            self._fresh_seconds = max(FRESH_SECONDS, LISTING_SHARE * (self._read_at - begun))
        return self._facts

    def facts_of(self, category: str) -> dict[str, Any]:
        """Recorded facts of one category's model."""
        facts = self.facts
        if category in self._left_out:
            raise RefusedError(409, self._left_out[category])
        if category not in facts:
            raise RefusedError(404, unknown("category", category, sorted(facts)))
        return facts[category]

    def models(self) -> list[dict[str, Any]]:
        """What can be asked for, and the limits."""
        named = ("defects", "resolution", "weights_sha256")
        return [
            {"category": category, **{name: facts[name] for name in named}, "max_n": self.config.serve.max_n}
            for category, facts in sorted(self.facts.items())
        ]

    def model(self, category: str) -> dict[str, Any]:
        """One category in full: the model's facts, its scores if the run has some, defaults and limits."""
        facts, c, folder = self.facts_of(category), self.config, self.run.folder
        scores = folder.read_json("scores.json") if folder.exists("scores.json") else {}
        return {
            **facts,
            "scores": [score for score in scores.get("scores", []) if score.get("category") == category],
            "pair_alignment": scores.get("pair_alignment", {}).get(category),
            "grid": c.data.grid,
            "bases": len(self.keys(category, GOOD)),
            "references": {defect: len(self.keys(category, defect)) for defect in facts["defects"]},
            "defaults": {name: getattr(c.synthesize, name) for name in ("steps", "guidance", "background", "start")},
            "pass_size": c.serve.max_batch_size,
            "limits": {name: getattr(c.serve, name) for name in ("max_n", "max_steps", "max_side", "max_body_mb")},
        }

    def base(self, category: str, number: int) -> bytes:
        """One of the run's normal images at the model's resolution, as PNG."""
        self.facts_of(category)
        sample = self.samples[self.numbered("base_number", category, GOOD, number)]
        return png_bytes(read_image(sample, self.config.data.resolution))

    def keys(self, category: str, defect: str) -> list[str]:
        """Keys of the training images of a defect, or of the normal ones, sorted."""
        if (category, defect) not in self._keys:
            samples = self.run.category(category).train
            self._keys[category, defect] = sorted(sample.key for sample in samples if sample.defect == defect)
        return self._keys[category, defect]

    def numbered(self, field: str, category: str, defect: str, number: int) -> str:
        """The key that a number in a request means."""
        keys = self.keys(category, defect)
        if not 0 <= number < len(keys):
            raise RefusedError(404, f"{field} = {number}: there are {len(keys)}, counted from 0")
        return keys[number]

    def _split_fault(self, category: str, digest: str | None) -> str:
        """Message about a model that was made under another split; empty for the others."""
        try:
            self.run.check_same_split([{"category": category, "split_digest": digest}], "the model")
        except ValueError as error:
            return str(error)
        return ""


def unknown(kind: str, name: str, names: Sequence[str]) -> str:
    """The message about an unknown category or defect."""
    return f"no {kind} {name!r}{nearest(name, list(names))}; there are: {', '.join(names)}"
