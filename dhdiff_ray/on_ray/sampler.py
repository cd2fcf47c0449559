"""The sampler behind the endpoint: one run's models, asked for pairs one by one; knows nothing of Ray or HTTP.

Not in the paper. Decided: a pair is a function of (run, category, defect, seed) and what the user adds; base and
reference are drawn from the seed as ``synthesis.plan`` draws them, and every pair is made in a batch of its own, so the
same question always has the same bytes as answer.
"""

from __future__ import annotations

import base64
import binascii
import io
import random
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from dhdiff_ray.config import Config
from dhdiff_ray.config_layers import nearest
from dhdiff_ray.data.images import shrink_mask
from dhdiff_ray.data.prompts import prompt
from dhdiff_ray.data.regions import control_from_points
from dhdiff_ray.data.split import Split
from dhdiff_ray.data.writer import png_bytes
from dhdiff_ray.records import Request
from dhdiff_ray.storage import RunFolder

MAX_SIDE = 4096
"""Largest side of a picture that is taken."""


class RefusedError(ValueError):
    """A question that cannot be answered; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps the status when it travels between processes."""
        return RefusedError, (self.status, self.message)


class Ask(BaseModel):
    """A question for pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    category: str
    """A category that ``GET /v1/models`` lists."""
    defect: str
    """One of its defects."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the first pair; the next ones count up."""
    n: int = Field(default=1, ge=1)
    """Pairs wanted."""
    base: str | None = None
    """Your own product image as a base64 PNG, instead of a normal image of the run."""
    control_mask: str | None = None
    """Where the defect shall be, as a base64 PNG, above zero inside; instead of the place of a real defect."""
    points: list[tuple[float, float]] | None = Field(default=None, min_length=1, max_length=256)
    """The same as points (x, y) in pixels of your base image, or else of a model's own image."""


class SamplerCore:
    """Answers questions with the models of one run.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: the run has no split or no trained model.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = RunFolder.of(config.run.storage, config.run.name)
        if not self.folder.exists("split.json"):
            raise ValueError(f"{self.folder.uri} is not a trained run; train first: dhdiff-ray submit train --run NAME")
        self.split = Split.from_json(self.folder.read_json("split.json"))
        marks = [file for file in self.folder.files("models") if file.count("/") == 2 and file.endswith("/dhdiff.json")]
        self.facts: dict[str, dict[str, Any]] = {mark.split("/")[1]: self.folder.read_json(mark) for mark in marks}
        if not self.facts:
            raise ValueError(f"{self.folder.uri} has no trained model; go on with: dhdiff-ray submit train --resume")

        # A scheduler counts its steps, so one pipeline makes one pair at a time, even if who asked has gone away.
        self._turn = threading.Lock()

    def models(self) -> list[dict[str, Any]]:
        """What can be asked for, and the limits."""
        limit = self.config.serve.max_batch_size
        return [
            {
                "category": category,
                "defects": facts["defects"],
                "resolution": facts["resolution"],
                "weights_sha256": facts["weights_sha256"],
                "max_n": limit,
            }
            for category, facts in sorted(self.facts.items())
        ]

    def check(self, ask: Ask) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Refuse what cannot be made, before a model is loaded; returns base (h, w, 3) and control mask (h, w).

        Raises:
            RefusedError: 404 for an unknown category or defect, 422 for anything else that does not fit.
        """
        if ask.category not in self.facts:
            raise RefusedError(404, _unknown("category", ask.category, sorted(self.facts)))
        defects = self.facts[ask.category]["defects"]
        if ask.defect not in defects:
            raise RefusedError(404, _unknown("defect", ask.defect, defects))
        if ask.n > self.config.serve.max_batch_size:
            raise RefusedError(
                422, f"n = {ask.n} is more than {self.config.serve.max_batch_size} pairs; ask several times"
            )
        if ask.seed + ask.n > 2**63:
            raise RefusedError(422, f"seed + n = {ask.seed + ask.n} must not pass 2**63")
        if ask.control_mask is not None and ask.points is not None:
            raise RefusedError(422, "control_mask and points say the same thing; give one of them")
        side = self.config.data.resolution
        base = control = None
        seen = (side, side)
        if ask.base is not None:
            picture = _picture("base", ask.base)
            seen = picture.size
            base = np.array(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)
        if ask.control_mask is not None:
            control = shrink_mask(np.asarray(_picture("control_mask", ask.control_mask).convert("L")), side)
            if not control.any():
                raise RefusedError(422, "control_mask is empty; pixels above zero say where the defect shall be")
        if ask.points is not None:
            if outside := [p for p in ask.points if not (0 <= p[0] < seen[0] and 0 <= p[1] < seen[1])]:
                raise RefusedError(422, f"point {outside[0]} lies outside the {seen[0]} x {seen[1]} image")
            scaled = [(x * side / seen[0], y * side / seen[1]) for x, y in ask.points]
            control = control_from_points(scaled, side, self.config.data.grid)
        return base, control

    def load(self, category: str) -> Any:
        """The category's pipeline."""
        import torch

        from dhdiff_ray.model.pipeline import DHDiffPipeline

        pipeline = DHDiffPipeline.from_pretrained(self.folder.local(f"models/{category}"))
        if self.config.serve.gpus_per_replica and torch.cuda.is_available():
            pipeline.to("cuda")
        return pipeline

    def pairs(self, ask: Ask, pipeline: Any) -> list[dict[str, Any]]:
        """The answer: pairs as base64 PNGs with what they were made from.

        Raises:
            RefusedError: see ``check``.
        """
        import torch

        from dhdiff_ray.synthesis import make

        base, control = self.check(ask)
        torch.set_num_threads(self.config.synthesize.cpus_per_worker)
        torch.set_flush_denormal(True)  # of the thread that samples
        answers = []
        for request in self.requests(ask):
            with self._turn:
                (pair,) = make([request], pipeline, self.config, self.split.train, base=base, control=control)
            facts = {name: getattr(request, name) for name in ("category", "defect", "seed", "prompt", "reference")}
            own = {"base": request.base if base is None else None}
            answers.append({"image": _text(pair.image), "mask": _text(pair.mask), **facts, **own})
        return answers

    def requests(self, ask: Ask) -> list[Request]:
        """What each pair is made from, drawn from its seed as ``synthesis.plan`` does."""
        own = self.split.category(ask.category).train
        bases = sorted(s.key for s in own if s.is_good)
        references = sorted(s.key for s in own if s.defect == ask.defect)
        return [self._request(ask, index, bases, references) for index in range(ask.n)]

    def _request(self, ask: Ask, index: int, bases: Sequence[str], references: Sequence[str]) -> Request:
        seed = ask.seed + index
        draw = random.Random(seed)
        base, reference = draw.choice(bases), draw.choice(references)
        return Request(ask.category, ask.defect, index, seed, prompt(ask.category, ask.defect), base, reference)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    return f"no {what} {name!r}{nearest(name, list(known))}; there are: {', '.join(known)}"


def _picture(field: str, text: str) -> Image.Image:
    try:
        data = base64.b64decode(text, validate=True)
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if max(picture.size) > MAX_SIDE:
            raise RefusedError(
                422, f"{field} is {picture.size[0]} x {picture.size[1]} pixels; at most {MAX_SIDE} a side"
            )
        picture.load()
    except RefusedError:
        raise
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RefusedError(422, f"{field} is not a PNG in base64: {error}") from None
    return picture


def _text(array: np.ndarray) -> str:
    return base64.b64encode(png_bytes(array)).decode()
