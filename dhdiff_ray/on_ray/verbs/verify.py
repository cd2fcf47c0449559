"""Open every file of a dataset on all cores of a cluster and tell what would spoil a run: ``data/verify.py`` over Ray.

Not in the paper. Decided: a unit is a few dozen files, so that a slow disk is asked by many at once and little is told;
what is found comes back as events, a line each, since a dataset has no run's folder to write to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.data.mirror import local_root
from dhdiff_ray.data.verify import Inspection, inspect, verify
from dhdiff_ray.on_ray.pool import map_units
from dhdiff_ray.records import Sample
from dhdiff_ray.run.events import tell as tell_event

UNIT = 32
"""Images of one unit."""


def main(config: Config, resume: bool = False) -> int:
    """Tell each finding as an event, then a summary; 0 whatever was found."""
    data = config.data.model_copy(update={"root": str(local_root(config.data.root))})
    findings, summary = verify(data, seed=config.run.seed, inspecting=lambda samples: across(samples, config.data.root))
    for finding in findings:
        tell_event({"event": "finding", **asdict(finding)})
    tell_event({"event": "verified", **summary})
    return 0


def across(
    samples: Sequence[Sample], root: str = "", workers: int = 0, tell: Callable[[dict[str, Any]], None] | None = None
) -> Iterable[tuple[Sample, Inspection]]:
    """Inspect every sample, in any order, on all cores of the cluster.

    Args:
        samples: what to look at.
        root: a URI is copied once to each machine.
        workers: at most so many; 0 takes all cores.
        tell: takes an event of progress; None writes it.

    Raises:
        ValueError: a unit failed for another reason than its files.
    """
    units = [list(samples[at : at + UNIT]) for at in range(0, len(samples), UNIT)]
    done = 0
    for at, inspections, error in map_units(units, Inspector, {"root": root}, workers=workers):
        if error:
            raise ValueError(f"{units[at][0].image} and the next {len(units[at]) - 1}: {error}")
        done += len(units[at])
        (tell or tell_event)(
            {"event": "progress", "verb": "verify", "category": "images", "done": done, "total": len(samples)}
        )
        yield from zip(units[at], inspections, strict=True)


class Inspector:
    """One worker of the pool."""

    def __init__(self, root: str = "") -> None:
        if "://" in root:
            local_root(root)

    def __call__(self, unit: Sequence[Sample]) -> list[Inspection]:
        """Look at each image of a unit."""
        return [inspect(sample) for sample in unit]
