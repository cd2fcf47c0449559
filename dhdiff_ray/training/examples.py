"""The training images of one category in memory, and the words of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import raw_mask
from dhdiff_ray.model.text import mark_defect_tokens, tokenize
from dhdiff_ray.records import GOOD, Sample


@dataclass(frozen=True)
class Words:
    """The prompts of n (category, defect) pairs as tokens."""

    tokens: Tensor  # (n, t), token ids of the prompts
    defect_tokens: Tensor  # (n, t), 1 on the defect's words
    empty_tokens: Tensor  # (t,), of the empty prompt

    @classmethod
    def of(cls, tokenizer: Any, names: Sequence[tuple[str, str]]) -> Words:
        """The prompts of these (category, defect) pairs, in order."""
        tokens = tokenize(tokenizer, [prompt(category, defect) for category, defect in names])
        words = ["" if defect == GOOD else defect_words(defect) for _, defect in names]
        return cls(tokens, mark_defect_tokens(tokenizer, tokens, words), tokenize(tokenizer, [""])[0])


@dataclass(frozen=True)
class Examples:
    """n training images with what follows from them once."""

    images: np.ndarray  # uint8 (n, h, w, 3)
    masks: np.ndarray  # uint8 (n, h, w)
    raw_masks: np.ndarray  # uint8 (n, h, w)
    tokens: Tensor  # (n, t), token ids of the prompts
    defect_tokens: Tensor  # (n, t), 1 on the defect's words
    empty_tokens: Tensor  # (t,), of the empty prompt
    normal: list[int]  # which of them are normal
    by_defect: list[list[int]]  # which show each defect

    @classmethod
    def of(
        cls, config: Config, samples: Sequence[Sample], images: np.ndarray, masks: np.ndarray, tokenizer: Any
    ) -> Examples:
        """What training needs of one category's samples, as ``data.images.read_many`` reads them.

        Raises:
            ValueError: there is no anomaly among them.
        """
        words = Words.of(tokenizer, [(s.category, s.defect) for s in samples])
        defects = sorted({s.defect for s in samples if not s.is_good})
        if not defects:
            raise ValueError("there is no anomaly to train on; check the split and --category")
        return cls(
            images=images,
            masks=masks,
            raw_masks=np.stack([raw_mask(m, config.data.grid) for m in masks]),
            tokens=words.tokens,
            defect_tokens=words.defect_tokens,
            empty_tokens=words.empty_tokens,
            normal=[i for i, s in enumerate(samples) if s.is_good],
            by_defect=[[i for i, s in enumerate(samples) if s.defect == defect] for defect in defects],
        )

    @cached_property
    def anomalies(self) -> list[int]:
        """Which of them show a defect, defect by defect."""
        return [i for same in self.by_defect for i in same]

    def choose(self, normal_fraction: float, draws: np.ndarray) -> int:
        """The image of one row: a normal one, or one of a defect drawn first; ``draws`` are three of [0, 1)."""
        if self.normal and draws[0] < normal_fraction:
            return self.normal[int(draws[1] * len(self.normal))]
        same = self.by_defect[int(draws[1] * len(self.by_defect))]
        return same[int(draws[2] * len(same))]

    def anomaly_like(self, index: int, draw: float) -> int | None:
        """For a normal image an anomaly whose place it could have had, by a number of [0, 1); None for an anomaly."""
        if index not in self._normal:
            return None
        return self.anomalies[int(draw * len(self.anomalies))]

    def word(self, index: int) -> int:
        """Which row of the tokens an image has."""
        return index

    @cached_property
    def _normal(self) -> set[int]:
        return set(self.normal)
