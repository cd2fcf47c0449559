"""The steps of a foundation's training in eras, each drawn from a few open shards of the pool (not in the paper).

Decided: which shards an era opens is a function of (seed, era), and what a step draws from them one of (seed, step), so
that resuming needs no state and no worker ever holds more than ``OPEN`` shards, however large the pool is. Shards are
opened by the sources' weights; a row is drawn from an open shard's source, then a category, then a defect of it, then
an image, so that neither many images nor a name that two products share count more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.regions import raw_mask
from dhdiff_ray.training.cuts import FLIPPED, UNFLIPPED, Cut, Cutter, Row, latent_window
from dhdiff_ray.training.pool import Pool, Shard

T = TypeVar("T")
Grouped = dict[int, dict[str, dict[int, list[int]]]]
"""Numbers of rows by source, category and prompt."""
OPEN = {False: 6, True: 2}
"""Shards that are open at once, of anomalies and of normal images."""
ERA_ROWS = 1024
"""Rows that are drawn from them, about, before others are opened."""


@dataclass(frozen=True)
class Opened:
    """Which shards an era draws from."""

    shards: tuple[int, ...]
    """Numbers of the shards, each once."""
    slots: dict[bool, tuple[int, ...]]
    """The sources that anomalies and normal images are drawn from, each as often as its weight gives it."""


class Eras:
    """Cuts the steps of a training into eras.

    Args:
        pool: the shards.
        config: the run's configuration.
    """

    def __init__(self, pool: Pool, config: Config) -> None:
        self.pool, self.config = pool, config
        self.steps = max(1, ERA_ROWS // config.train.global_batch_size)

    def of(self, step: int) -> int:
        """The era a step belongs to."""
        return step // self.steps

    def span(self, era: int) -> range:
        """The steps of an era."""
        return range(era * self.steps, min((era + 1) * self.steps, self.config.train.steps))

    def opened(self, era: int) -> Opened:
        """What an era draws from; each source is open in proportion to its weight, on average exactly."""
        rng = np.random.default_rng((self.config.run.seed, era, len(self.pool.shards)))
        edges = np.cumsum(self.pool.weights) / sum(self.pool.weights)
        slots: dict[bool, tuple[int, ...]] = {}
        shards: list[int] = []
        for normal, count in OPEN.items():
            places = (rng.random() + np.arange(count)) / count
            sources = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
            slots[normal] = tuple(int(source) for source in sources)
            for source in sorted(set(slots[normal])):
                there = [i for i, s in enumerate(self.pool.shards) if (s.source, s.normal) == (source, normal)]
                shards += [there[i] for i in rng.permutation(len(there))[: slots[normal].count(source)]]
        return Opened(tuple(shards), slots)

    def cutter(self, era: int) -> Cutter:
        """What draws the steps of an era: its shards, read."""
        opened = self.opened(era)
        pictures = OpenPictures([self.pool.read(at) for at in opened.shards], opened, self.pool, self.config)
        latents = None
        if pictures.shards[0].latents is not None:
            latents = OpenLatents(pictures, self.config)
        return Cutter(self.config, pictures, latents)

    def cuts(self, steps: range, rank: int, world_size: int) -> Iterator[Cut]:
        """The rows of some steps of one era."""
        cutter, total = self.cutter(self.of(steps.start)), self.config.train.global_batch_size
        for step in steps:
            yield cutter.cut(step, total, rank, world_size)


class OpenPictures:
    """The rows of the open shards, by number; see ``training.cuts.Pictures``."""

    def __init__(self, shards: Sequence[Shard], opened: Opened, pool: Pool, config: Config) -> None:
        self.shards, self.opened = shards, opened
        self.where = [(at, row) for at, shard in enumerate(shards) for row in range(len(shard.masks))]
        self.images = _Rows(self, lambda shard, row: shard.images[row])
        self.masks = _Rows(self, lambda shard, row: shard.masks[row])
        self.raw_masks = _Rows(self, lambda shard, row: raw_mask(shard.masks[row], config.data.grid))
        self.grouped: dict[bool, Grouped] = {False: {}, True: {}}
        self.category = [pool.prompts[self.word(number)][0] for number in range(len(self.where))]
        for number, (at, _) in enumerate(self.where):
            of_source = self.grouped[shards[at].normal].setdefault(shards[at].source, {})
            of_category = of_source.setdefault(self.category[number], {})
            of_category.setdefault(self.word(number), []).append(number)

    def choose(self, normal_fraction: float, draws: np.ndarray) -> int:
        """A row: normal or not, its source, its category, its defect, itself; ``draws`` are three of [0, 1)."""
        normal = bool(draws[0] < normal_fraction)
        source, rest = _part(draws[1], self.opened.slots[normal])
        by_category = self.grouped[normal][source]
        category, _ = _part(rest, sorted(by_category))
        by_defect = by_category[category]
        defect, rest = _part(draws[2], sorted(by_defect))
        return _part(rest, by_defect[defect])[0]

    def anomaly_like(self, index: int, draw: float) -> int | None:
        """For a normal image an anomaly of its category, or of any where none is open; None for an anomaly."""
        shard = self.shards[self.where[index][0]]
        if not shard.normal:
            return None
        own = self.grouped[False].get(shard.source, {}).get(self.category[index], {})
        every = [own] if own else [by for source in self.grouped[False].values() for by in source.values()]
        return _part(draw, [number for by in every for defect in sorted(by) for number in by[defect]])[0]

    def word(self, index: int) -> int:
        """The number of a row's prompt in the pool."""
        at, row = self.where[index]
        return int(self.shards[at].prompts[row])


class OpenLatents:
    """The latents of the open shards' rows; see ``training.cuts.Latents``."""

    def __init__(self, pictures: OpenPictures, config: Config) -> None:
        self.pictures = pictures
        self.variants = FLIPPED if config.train.flips else UNFLIPPED

    @property
    def factor(self) -> int:
        """Pixels per latent position along a side."""
        first = self.pictures.shards[0]
        assert first.latents is not None
        return first.masks.shape[-1] // first.latents["image"].shape[-1]

    def latents(self, rows: Sequence[Row]) -> np.ndarray:
        """(3, b, c, h', w'): image, mask, reference."""
        cut = [self._one(row) for row in rows]
        return np.stack([np.stack(column) for column in zip(*cut, strict=True)])

    def _one(self, row: Row) -> list[np.ndarray]:
        shard, number = self.pictures.where[row.index]
        t, at = self.pictures.shards[shard].latents, (self.variants.index(row.flips), number)
        assert t is not None
        whole = [t["image"][at], t["mask"][at], t["blank"] if row.reference == "none" else t["reference"][at]]
        down, across = latent_window(row, (whole[0].shape[1], whole[0].shape[2]), self.factor)
        return [z[:, down, across] for z in whole]


class _Rows:
    """One field of the rows, by number."""

    def __init__(self, pictures: OpenPictures, get: Callable[[Shard, int], np.ndarray]) -> None:
        self.pictures, self.get = pictures, get

    def __getitem__(self, index: int) -> np.ndarray:
        at, row = self.pictures.where[index]
        return self.get(self.pictures.shards[at], row)


def _part(draw: float, choices: Sequence[T]) -> tuple[T, float]:
    """One of several by a number of [0, 1), and what is left of that, which is uniform in [0, 1) as well."""
    scaled = draw * len(choices)
    at = min(int(scaled), len(choices) - 1)
    return choices[at], scaled - at
