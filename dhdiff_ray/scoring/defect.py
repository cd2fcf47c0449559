"""The scores of one defect's made images, whatever folder they lie in: observe parts, combine, value (section IV-C).

``on_ray/verbs/score.py`` runs this on the workers of a cluster, ``dhdiff-ray score`` in its own process; the numbers
are the same. Each number that can have one comes with a reference: the same measured on the real held-out half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dhdiff_ray.config import ScoreConfig
from dhdiff_ray.metrics.base import State, add, merge
from dhdiff_ray.metrics.ic_lpips import CentreDistances, IcLpips, add_to
from dhdiff_ray.metrics.inception_score import InceptionScore
from dhdiff_ray.metrics.kid import kid_score
from dhdiff_ray.metrics.masks import mask_rows, mask_scores
from dhdiff_ray.metrics.originality import originality
from dhdiff_ray.metrics.overlap import overlap_rows, overlap_score
from dhdiff_ray.metrics.profiles import profile_of
from dhdiff_ray.records import Score

if TYPE_CHECKING:
    from dhdiff_ray.metrics.features.base import Classifier, Perceiver

States = dict[str, State]
"""States of one defect by kind: ``is``, ``even``, ``distances``, ``sums``, ``spreads``, ``pooled``, ``masks``,
``overlaps``."""
ADDED = ("is", "even", "sums")
"""States that are sums; the others are rows by image."""


@dataclass(frozen=True)
class RealImages:
    """Real anomalies of one defect: names, images uint8 (h, w, 3), masks (h, w)."""

    names: tuple[str, ...] = ()
    images: tuple[np.ndarray, ...] = ()
    masks: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Defect:
    """What is to be scored, and what it is compared with."""

    category: str
    defect: str
    names: tuple[str, ...]
    """Of all made images."""
    load: Callable[[str], np.ndarray]
    """Name to image uint8 (h, w, 3)."""
    load_mask: Callable[[str], np.ndarray] | None = None
    """Name to mask (h, w); None where there are no masks."""
    train: RealImages = field(default_factory=RealImages)
    held_out: RealImages = field(default_factory=RealImages)


class DefectScorer:
    """Computes the metrics that a configuration names; networks are opened when first needed.

    Args:
        config: metrics, networks, profile, splits.
        seed: first seed of the draws of IC-LPIPS.
        keep_sums: also observe the sums of each cluster, so that only images of clusters larger than the profile's cap
            are looked at twice. A state then holds a feature's length per centre: not for states that travel.
    """

    def __init__(self, config: ScoreConfig, seed: int = 0, *, keep_sums: bool = False) -> None:

        self.config, self.profile, self.keep_sums = config, profile_of(config), keep_sums
        self.seeds = list(range(seed, seed + config.seeds))
        self._first: dict[tuple[str, str], CentreDistances] = {}

    @cached_property
    def classifier(self) -> Classifier:
        """Of IS and KID."""
        from dhdiff_ray.metrics.features.choose import open_classifier

        return open_classifier(self.config)

    @cached_property
    def perceiver(self) -> Perceiver:
        """Of IC-LPIPS and originality."""
        from dhdiff_ray.metrics.features.choose import open_perceiver

        return open_perceiver(self.config)

    def wants(self, *metrics: str) -> bool:
        """Whether any of these is asked for."""
        return any(metric in self.config.metrics for metric in metrics)

    def observe(self, defect: Defect, names: Sequence[str]) -> States:
        """What the metrics see of some of a defect's images; each image passes each network once."""
        scales = {}
        if self.wants("is"):
            even = self._even(defect)
            scales = {"is": InceptionScore(self.classifier, defect.names, self.config.splits)}
            scales |= {"even": even[0]} if even else {}
        parts: dict[str, list[State]] = {}
        sums: State = {}
        for name in names:
            image = defect.load(name)
            if self.wants("is", "kid"):
                probabilities, pooled = self.classifier.classify(image[None])
                for kind, scale in scales.items():
                    if scale.holds(name):
                        parts.setdefault(kind, []).append(scale.observe([name], probabilities))
                if self.wants("kid"):
                    parts.setdefault("pooled", []).append({name: pooled[0]})
            if self.wants("ic_lpips", "originality"):
                parts.setdefault("distances", []).append({name: self._distances(defect, name, image, sums)})
            if self.wants("masks") and defect.load_mask:
                seen = [name], [defect.load_mask(name)]
                parts.setdefault("masks", []).append(mask_rows(*seen))
                parts.setdefault("overlaps", []).append(overlap_rows(*seen, defect.train.masks))
        states = {kind: combine(kind, observed) for kind, observed in parts.items()}
        return states | ({"sums": sums} if sums else {})

    def value(self, defect: Defect, states: States) -> list[Score]:
        """The scores of a defect of which every image was observed."""
        scores: list[Score] = []
        if self.wants("is", "kid"):
            classes, pooled = self._classified(defect.held_out)
            if self.wants("is"):
                scores.append(InceptionScore(self.classifier, defect.names, self.config.splits).value(states["is"]))
                scores += self._at_real_n(defect, states.get("even", {}), classes)
            if self.wants("kid"):
                scores.append(kid_score(self.classifier, states["pooled"], self._classified(defect.train)[1], pooled))
        if self.wants("ic_lpips", "originality"):
            first = self.first(defect)
            held_out = (
                {} if self.profile.centres == "all" else first.observe(defect.held_out.names, defect.held_out.images)
            )
            if self.wants("ic_lpips"):
                scores.append(self._ic_lpips(first, defect, states, held_out))
            if self.wants("originality"):
                scores.append(originality(first, states["distances"], held_out))
        if "masks" in states:
            real = defect.train.masks, defect.held_out.masks
            scores += [*mask_scores(states["masks"], *real), overlap_score(states["overlaps"], *real)]
        return scores

    def compare(self, defect: Defect, distances: State, part: int, parts: int) -> State:
        """The second look of IC-LPIPS at every ``parts``-th cluster of a defect: state ``spreads``, to be merged."""
        clusters = self.first(defect).clusters(distances, self.seeds)[part::parts]
        return IcLpips(self.perceiver, clusters, self.profile).compare(defect.load)

    def first(self, defect: Defect) -> CentreDistances:
        """The first pass of a defect; the last one is kept, its centres take 32 MB each with VGG at full size.

        Raises:
            ValueError: the defect has no real images to be centres.
        """
        key = (defect.category, defect.defect)
        if key not in self._first:
            sides = [defect.train] + ([defect.held_out] if self.profile.centres == "all" else [])
            names = [name for side in sides for name in side.names]
            images = [image for side in sides for image in side.images]
            try:
                self._first = {key: CentreDistances(self.perceiver, names, images, self.profile)}
            except ValueError as error:
                raise ValueError(f"{defect.category}/{defect.defect}: {error}") from None
        return self._first[key]

    def _distances(self, defect: Defect, name: str, image: np.ndarray, sums: State) -> np.ndarray:

        first = self.first(defect)
        keep = self.keep_sums and self.wants("ic_lpips")
        return add_to(first, sums, name, image) if keep else first.measure(name, image)[1]

    def _even(self, defect: Defect) -> tuple[InceptionScore, InceptionScore] | None:
        """Scores of made and of held-out images from parts of one size: the smaller side's number of images."""
        sides = [sorted(side) for side in (defect.names, defect.held_out.names)]
        size = min(map(len, sides))
        if size < 2:
            return None
        made, real = (
            InceptionScore(self.classifier, side[: len(side) // size * size], len(side) // size) for side in sides
        )
        return made, real

    def _at_real_n(self, defect: Defect, state: State, classes: np.ndarray) -> list[Score]:
        """The Inception Score beside its scale: it grows with N, so both are taken from parts of one size."""
        even = self._even(defect)
        if even is None:
            return []
        made, real = even
        seen = zip(defect.held_out.names, classes, strict=True)
        held_out = add(real.observe([name], p[None]) for name, p in seen if real.holds(name))
        value, reference = made.value(state), real.value(held_out)
        conditions = {**value.conditions, "n_of_a_part": made.count // made.splits, "n_held_out": real.count}
        name = self.classifier.metric_name("inception_at_real_n")
        return [Score(name, value.value, value.n, conditions, reference.value)]

    def _ic_lpips(self, first: CentreDistances, defect: Defect, states: States, held_out: State) -> Score:

        made = self._spread(first, states["distances"], defect.load, states.get("sums"), states.get("spreads"))
        if not held_out:
            return made
        images = dict(zip(defect.held_out.names, defect.held_out.images, strict=True))
        real = self._spread(first, held_out, images.__getitem__)
        return Score(made.metric, made.value, made.n, {**made.conditions, "n_held_out": real.n}, real.value)

    def _spread(
        self,
        first: CentreDistances,
        distances: State,
        load: Callable[[str], np.ndarray],
        sums: State | None = None,
        spreads: State | None = None,
    ) -> Score:

        clusters = first.clusters(distances, self.seeds)
        second = IcLpips(self.perceiver, clusters, self.profile, {"seeds": self.seeds})
        return second.value(second.compare(load, sums) if spreads is None else spreads)

    def _classified(self, real: RealImages) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities (n, k) and pooled features (n, d) of real images."""
        if not real.images:
            return np.zeros((0, 1)), np.zeros((0, 1), np.float32)
        seen = [self.classifier.classify(image[None]) for image in real.images]
        return np.concatenate([p for p, _ in seen]), np.concatenate([pooled for _, pooled in seen])


def combine(kind: str, states: Iterable[Mapping[str, np.ndarray]]) -> State:
    """One state out of many of a kind, in any order: sums are added, rows put together."""
    return add(states) if kind in ADDED else merge(states)


def describe(config: ScoreConfig) -> dict[str, Any]:
    """What every score of a configuration has in common, for the record."""
    profile = profile_of(config)
    return {"profile": profile.name, "rule": profile.rule, "features": config.features}
