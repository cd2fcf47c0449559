"""IC-LPIPS: how much the made images of one defect differ among those near the same real image (section IV-C).

Each made image joins the nearest real training anomaly; the score is the mean LPIPS over all pairs within a cluster,
averaged over clusters; ``profiles.py`` has the rules. LPIPS is a squared Euclidean distance between features g, so the
mean over a cluster's pairs is twice the unbiased variance of g: 2 / (n - 1) * (sum |g|^2 - |sum g|^2 / n). No pair is
ever formed: cost grows linearly with the images, and memory not at all.

``CentreDistances`` gives rows small enough to send anywhere; ``IcLpips`` then streams a cluster's members once more,
because which of them a cap keeps is known only when all are assigned. ``add_to`` adds an image to its cluster's sums in
the same pass, so that a cluster that is compared whole needs no second look; the sums of a centre are as large as a
feature (64 MB for VGG at 256 pixels), so they stay in the process that made them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.features.base import Perceiver
from dhdiff_ray.metrics.profiles import PROFILES, Profile
from dhdiff_ray.records import Score

CHUNK = 2**16
"""Feature columns that are multiplied in float32 before their sum is added in float64."""


@dataclass(frozen=True)
class Cluster:
    """The made images nearest to one real image."""

    centre: str
    size: int
    """Images in the cluster."""
    draws: tuple[tuple[str, ...], ...]
    """Per seed the sorted names of the images that are compared; one draw if all are."""

    @property
    def members(self) -> tuple[str, ...]:
        """Members of any draw, sorted."""
        return tuple(sorted({name for draw in self.draws for name in draw}))

    @property
    def whole(self) -> bool:
        """Whether every image is compared, so that sums over the cluster are enough."""
        return len(self.draws) == 1 and len(self.draws[0]) == self.size


def count_in(sums: State, name: str, feature: np.ndarray) -> None:
    """Count a feature float32 (d,) in the sums of that name: a vector (d + 2,) of number, squared lengths, features.

    Adding the vectors of two sets is the same as having seen both.
    """
    vector = sums.setdefault(name, np.zeros(len(feature) + 2))
    vector[0] += 1
    vector[1] += float(np.dot(feature.astype(np.float64), feature))
    vector[2:] += feature


def mean_distance(vector: np.ndarray) -> float:
    """Mean squared distance over all unordered pairs of what was counted in; NaN for fewer than two."""
    count, square, total = float(vector[0]), float(vector[1]), vector[2:]
    if count < 2:
        return float("nan")
    spread = square - float(np.dot(total, total)) / count
    return max(2 * spread / (count - 1), 0.0)


class CentreDistances:
    """First pass: how far each made image is from each real image of its defect.

    Args:
        perceiver: the network that gives perceptual features.
        centres: names of the real images.
        images: the real images, uint8 (m, h, w, 3), or a list of such of any size.
        profile: the rule; it may read real images another way.

    Raises:
        ValueError: no centres, or features that are not finite.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        centres: Sequence[str],
        images: Sequence[np.ndarray] | np.ndarray,
        profile: Profile = PROFILES["anomalydiffusion"],
    ) -> None:
        if len(centres) == 0:
            raise ValueError(
                "IC-LPIPS needs the real training anomalies of the defect as centres, got none; "
                "name them (--real FOLDER), or leave ic_lpips and originality out of score.metrics"
            )
        self.perceiver, self.profile = perceiver, profile
        order = sorted(range(len(centres)), key=lambda i: centres[i])
        self.centres = [centres[i] for i in order]
        # Equal images share a column, so that a tie is a tie and not a matter of the last bit.
        unique: dict[bytes, int] = {}
        self._column = [unique.setdefault(images[i].tobytes(), len(unique)) for i in order]
        first = [order[self._column.index(column)] for column in range(len(unique))]
        kinds = {"raw": profile.raw_centres, "nearest": profile.nearest_centres}
        rows = [perceiver.perceptual(images[i][None], **kinds)[0] for i in first]
        self._features = finite(np.stack(rows), [centres[i] for i in first])
        self._lengths = lengths(self._features)

    def observe(self, names: Sequence[str], images: Sequence[np.ndarray] | np.ndarray) -> State:
        """Distances, float64 (m,) in the sorted order of the centres, of each image uint8 (h, w, 3)."""
        return {name: self.measure(name, image)[1] for name, image in zip(names, images, strict=True)}

    def measure(self, name: str, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The feature (d,) of an image uint8 (h, w, 3), and its distances (m,)."""
        feature = finite(self.perceiver.perceptual(image[None]), [name])
        return feature[0], squared_distances(feature, self._features, self._lengths)[0][self._column]

    def among(self) -> np.ndarray:
        """Distances between different centres, each pair once."""
        distances = squared_distances(self._features, self._features)
        return distances[np.triu_indices(len(distances), k=1)]

    def nearest(self, distances: np.ndarray) -> np.ndarray:
        """Index of the nearest centre per row; among equals the last wins, as with the reference's ``<=``."""
        return distances.shape[1] - 1 - np.argmin(distances[:, ::-1], axis=1)

    def clusters(self, state: State, seeds: Sequence[int] = (0,)) -> list[Cluster]:
        """Every centre's cluster, empty ones included, with what each seed draws from a large one."""
        names, distances = table(state)
        nearest = self.nearest(distances)
        clusters = []
        for index, centre in enumerate(self.centres):
            members = [name for name, at in zip(names, nearest, strict=True) if at == index]
            clusters.append(Cluster(centre, len(members), _draws(members, centre, self.profile, seeds)))
        return clusters


class IcLpips:
    """Second pass: the spread within each cluster of one defect; states merge by the centre's name.

    Args:
        perceiver: the network of the first pass.
        clusters: what ``CentreDistances.clusters`` gave.
        profile: the rule.
        conditions: more conditions to report, such as the seeds of the draws.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        clusters: Sequence[Cluster],
        profile: Profile = PROFILES["anomalydiffusion"],
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        self.perceiver, self.clusters, self.profile = perceiver, list(clusters), profile
        self.conditions = dict(conditions or {})

    def observe(self, centre: str, load: Callable[[str], np.ndarray]) -> State:
        """Mean pairwise distance per draw of one cluster's members, each loaded once: float64 (draws,)."""
        (cluster,) = (c for c in self.clusters if c.centre == centre)
        draws, sums = {str(at): frozenset(draw) for at, draw in enumerate(cluster.draws)}, State()
        for name in cluster.members:
            (feature,) = finite(self.perceiver.perceptual(load(name)[None]), [name])
            for at in (at for at, draw in draws.items() if name in draw):
                count_in(sums, at, feature)
        return {centre: np.array([mean_distance(sums.get(at, np.zeros(2))) for at in draws])}

    def compare(self, load: Callable[[str], np.ndarray], sums: State | None = None) -> State:
        """``observe`` of every cluster that has pairs; one that is compared whole is read from ``sums`` by centre."""
        spreads: State = {}
        for cluster in (c for c in self.clusters if c.size >= 2):
            if sums is not None and cluster.whole:
                spreads[cluster.centre] = np.array([mean_distance(sums[cluster.centre])])
            else:
                spreads |= self.observe(cluster.centre, load)
        return spreads

    def value(self, state: State) -> Score:
        """The unweighted mean over clusters, then over seeds; no value if no cluster has two images.

        Raises:
            ValueError: a cluster was not observed.
        """
        kept = [cluster for cluster in self.clusters if cluster.size >= 2]
        if missing := [cluster.centre for cluster in kept if cluster.centre not in state]:
            raise ValueError(f"{len(missing)} clusters were not compared, the first is {missing[0]!r}; score again")
        draws = max((len(cluster.draws) for cluster in kept), default=1)
        # A cluster that was not drawn from counts the same under every seed.
        rows = np.array([np.broadcast_to(state[cluster.centre], draws) for cluster in kept]).reshape(-1, draws)
        without = float(rows.mean()) if kept else None
        if self.profile.small == "zero":
            rows = np.concatenate([rows, np.zeros((len(self.clusters) - len(kept), draws))])
        by_seed = rows.mean(axis=0) if len(rows) else np.array([])
        conditions = {
            "profile": self.profile.name,
            "backbone": self.perceiver.perceiver,
            "weights": self.perceiver.digest,
            **self.conditions,
            "cap": self.profile.cap,
            "std": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
            "std_over_clusters": float(rows.mean(axis=1).std(ddof=1)) if len(rows) > 1 else None,
            "cluster_sizes": [cluster.size for cluster in self.clusters],
            "clusters_dropped": len(self.clusters) - len(kept) if self.profile.small == "drop" else 0,
        }
        if self.profile.small == "zero":
            conditions |= {"clusters_counted_as_zero": len(self.clusters) - len(kept), "value_without_zeros": without}
        mean = float(by_seed.mean()) if kept else None
        size = sum(cluster.size for cluster in self.clusters)
        return Score(self.perceiver.metric_name("ic_lpips"), mean, size, conditions)


def ic_lpips(
    perceiver: Perceiver,
    centres: Mapping[str, np.ndarray],
    names: Sequence[str],
    load: Callable[[str], np.ndarray],
    profile: Profile = PROFILES["anomalydiffusion"],
    seeds: Sequence[int] = (0,),
) -> Score:
    """The whole procedure in this process.

    Args:
        perceiver: the network.
        centres: real training anomalies of one defect by name, uint8 (h, w, 3).
        names: the made images of that defect.
        load: gives the made image of a name.
        profile: the rule; an image passes the network a second time only if its cluster is larger than the cap.
        seeds: of the draws from large clusters.
    """
    first = CentreDistances(perceiver, list(centres), list(centres.values()), profile)
    state, sums = State(), State()
    for name in names:
        state[name] = add_to(first, sums, name, load(name))
    conditions = {} if profile.cap is None else {"seeds": list(seeds)}
    second = IcLpips(perceiver, first.clusters(state, seeds), profile, conditions)
    return second.value(second.compare(load, sums))


def add_to(first: CentreDistances, sums: State, name: str, image: np.ndarray) -> np.ndarray:
    """Count one image uint8 (h, w, 3) in the sums of its nearest centre; returns its distances (m,)."""
    feature, row = first.measure(name, image)
    count_in(sums, first.centres[int(first.nearest(row[None])[0])], feature)
    return row


def squared_distances(a: np.ndarray, b: np.ndarray, b_lengths: np.ndarray | None = None) -> np.ndarray:
    """Squared Euclidean distances, float64 (n, m), between rows of (n, d) and (m, d), one product per chunk."""
    right_lengths = lengths(b) if b_lengths is None else b_lengths
    total = lengths(a)[:, None] + right_lengths[None, :]
    for start in range(0, a.shape[1], CHUNK):
        total -= 2 * (a[:, start : start + CHUNK] @ b[:, start : start + CHUNK].T).astype(np.float64)
    return np.maximum(total, 0)


def lengths(rows: np.ndarray) -> np.ndarray:
    """Squared lengths, float64 (n,), of rows (n, d)."""
    chunks = (rows[:, start : start + CHUNK] for start in range(0, rows.shape[1], CHUNK))
    return sum((np.einsum("nd,nd->n", c, c).astype(np.float64) for c in chunks), np.zeros(len(rows)))


def finite(features: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The features, checked to be finite.

    Raises:
        ValueError: the network gave NaN or infinity for an image, which is named.
    """
    for name, row in zip(names, features, strict=True):
        if not np.isfinite(row).all():
            raise ValueError(
                f"the network's features of {name} are not finite; the image or the weights file is damaged"
            )
    return features


def _draws(members: Sequence[str], centre: str, profile: Profile, seeds: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Per seed, the members of a cluster that are compared, in the order of their names."""
    if profile.cap is None or len(members) <= profile.cap:
        return (tuple(members),)
    if profile.draw == "first":
        return (tuple(members[: profile.cap]),)
    key = int.from_bytes(hashlib.blake2b(centre.encode(), digest_size=8).digest(), "big")
    return tuple(
        tuple(sorted(np.random.default_rng([seed, key]).choice(members, profile.cap, replace=False).tolist()))
        for seed in seeds
    )
