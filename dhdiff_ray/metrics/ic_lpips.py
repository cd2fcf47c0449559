"""IC-LPIPS: how much the made images of one defect differ among those near the same real image (section IV-C).

AnomalyDiffusion's procedure: each made image joins the nearest real training anomaly; the score is the mean LPIPS over
all pairs within a cluster, averaged over clusters; a cluster of fewer than two is dropped. What we decided: the centres
are the anomalies that were trained on (theirs: the first third of the folder); the draw of ``size`` images from a large
cluster is seeded and over sorted names (theirs is neither); cluster sizes and drops are reported.

LPIPS is a squared Euclidean distance between features, so each image passes the network at most twice: once for
``CentreDistances`` (rows small enough to send anywhere), and once more within its cluster in ``IcLpips``, where the
features of one cluster (32 MB per image at full size) are held at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhdiff_ray.metrics.base import State, table
from dhdiff_ray.metrics.features import FeatureExtractor
from dhdiff_ray.records import Score

CHUNK = 2**18
"""Feature columns that are raised to float64 at a time."""


@dataclass(frozen=True)
class Cluster:
    """The made images nearest to one real image."""

    centre: str
    size: int
    """Images in the cluster."""
    members: tuple[str, ...]
    """Names of those that are compared, sorted."""


class CentreDistances:
    """First pass: how far each made image is from each real training anomaly of its defect.

    Args:
        features: the network that gives perceptual features.
        centres: names of the real images.
        images: the real images, uint8 (m, h, w, 3).

    Raises:
        ValueError: no centres.
    """

    def __init__(self, features: FeatureExtractor, centres: Sequence[str], images: np.ndarray) -> None:
        if len(centres) == 0:
            raise ValueError("IC-LPIPS needs the real training anomalies of the defect as centres, got none")
        self.features = features
        order = sorted(range(len(centres)), key=lambda i: centres[i])
        self.centres = [centres[i] for i in order]
        self._centre_features = features.perceptual(images[order])

    def observe(self, names: Sequence[str], images: np.ndarray) -> State:
        """Distances, float64 (m,) in the sorted order of the centres, of each image uint8 (n, h, w, 3)."""
        rows = (squared_distances(self.features.perceptual(one[None]), self._centre_features)[0] for one in images)
        return dict(zip(names, rows, strict=True))

    def clusters(self, state: State, size: int = 50, seed: int = 0) -> list[Cluster]:
        """Every centre's cluster, empty ones included; of a large one, ``size`` images are drawn by the seed."""
        names, distances = table(state)
        # Among equals the last centre wins, as with the reference procedure's ``<=``.
        nearest = distances.shape[1] - 1 - np.argmin(distances[:, ::-1], axis=1)
        clusters = []
        for index, centre in enumerate(self.centres):
            own = [name for name, at in zip(names, nearest, strict=True) if at == index]
            drawn = own
            if len(own) > size:
                key = int.from_bytes(hashlib.blake2b(centre.encode(), digest_size=8).digest(), "big")
                drawn = sorted(np.random.default_rng([seed, key]).choice(own, size, replace=False).tolist())
            clusters.append(Cluster(centre, len(own), tuple(drawn)))
        return clusters


class IcLpips:
    """Second pass: the spread within each cluster of one defect; states merge by the centre's name.

    Args:
        features: the network of the first pass.
        clusters: what ``CentreDistances.clusters`` gave.
        conditions: more conditions to report, such as the seed of the draw.
    """

    def __init__(
        self, features: FeatureExtractor, clusters: Sequence[Cluster], conditions: Mapping[str, Any] | None = None
    ) -> None:
        self.features = features
        self.clusters = list(clusters)
        self.conditions = dict(conditions or {})

    def observe(self, centre: str, images: np.ndarray) -> State:
        """Mean distance over all pairs of one cluster's members, uint8 (n, h, w, 3) with n of at least 2."""
        return {centre: np.array(spread(self.features.perceptual(images)))}

    def value(self, state: State) -> Score:
        """The unweighted mean over clusters of two or more; no value if there is none.

        Raises:
            ValueError: a cluster was not observed.
        """
        kept = [cluster for cluster in self.clusters if len(cluster.members) >= 2]
        if missing := [cluster.centre for cluster in kept if cluster.centre not in state]:
            raise ValueError(f"{len(missing)} clusters were not compared, the first is {missing[0]!r}; score again")
        spreads = [float(state[cluster.centre]) for cluster in kept]
        conditions = {
            "profile": "anomalydiffusion",
            "backbone": self.features.perceiver,
            "weights": self.features.digest,
            **self.conditions,
            "cluster_sizes": [cluster.size for cluster in self.clusters],
            "clusters_dropped": len(self.clusters) - len(kept),
        }
        mean = float(np.mean(spreads)) if spreads else None
        return Score(
            self.features.metric_name("ic_lpips"), mean, sum(cluster.size for cluster in self.clusters), conditions
        )


def ic_lpips(
    features: FeatureExtractor,
    centres: Mapping[str, np.ndarray],
    names: Sequence[str],
    load: Callable[[str], np.ndarray],
    size: int = 50,
    seed: int = 0,
) -> Score:
    """Both passes in this process.

    Args:
        features: the network.
        centres: real training anomalies of one defect by name, uint8 (h, w, 3).
        names: the made images of that defect.
        load: gives the made image of a name.
        size: most images of one cluster that are compared.
        seed: draws them.
    """
    first = CentreDistances(features, list(centres), np.stack(list(centres.values())))
    state: State = {}
    for name in names:
        state |= first.observe([name], load(name)[None])
    clusters = first.clusters(state, size, seed)
    second = IcLpips(features, clusters, {"cluster_size": size, "seed": seed})
    spreads: State = {}
    for cluster in clusters:
        if len(cluster.members) >= 2:
            spreads |= second.observe(cluster.centre, np.stack([load(name) for name in cluster.members]))
    return second.value(spreads)


def spread(features: np.ndarray) -> float:
    """Mean squared distance over all unordered pairs of rows of (n, d) with n of at least 2."""
    distances = squared_distances(features, features)
    return float(distances[np.triu_indices(len(features), k=1)].mean())


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, float64 (n, m), between rows of (n, d) and (m, d), chunk by chunk in float64."""
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], CHUNK):
        left, right = (x[:, start : start + CHUNK].astype(np.float64) for x in (a, b))
        total += (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - 2 * left @ right.T
    return np.maximum(total, 0)
