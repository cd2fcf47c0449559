"""Plan requests: the same pairs on any number of workers (section IV-B; contracts on disk).

Decided: a request names a normal training image as base and a training anomaly as reference, drawn from its own seed;
requests are cut into fixed shards made in one batch each, so that no number of workers can change a pixel.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from dhdiff_ray.config import Config
from dhdiff_ray.data.prompts import prompt
from dhdiff_ray.data.split import Split
from dhdiff_ray.records import Request, pair_seed


def plan(config: Config, split: Split, category: str) -> list[Request]:
    """Every request of one category: ``synthesize.pairs_per_defect`` for each defect that was trained on.

    A longer plan begins with the shorter one, so that asking for more keeps what is there.
    """
    part, indices = split.category(category), range(config.synthesize.pairs_per_defect)
    return [request for defect in defects_of(part) for request in requests_of(config, part, category, defect, indices)]


def defects_of(part: Split) -> list[str]:
    """Sorted defects that a category's part of the split has training anomalies of."""
    return sorted({s.defect for s in part.train if not s.is_good})


def requests_of(config: Config, part: Split, category: str, defect: str, indices: range) -> list[Request]:
    """The requests of one defect with these indices; ``part`` is the category's part of the split."""
    bases = sorted(s.key for s in part.train if s.is_good)
    references = sorted(s.key for s in part.train if s.defect == defect)
    requests = []
    for index in indices:
        seed = pair_seed(config.run.seed, category, defect, index)
        base, reference = draw_request(seed, bases, references)
        requests.append(Request(category, defect, index, seed, prompt(category, defect), base, reference))
    return requests


def draw_request(seed: int, bases: Sequence[str], references: Sequence[str]) -> tuple[str, str]:
    """Base and reference of the pair with this seed; their order here is part of what a seed means."""
    draw = random.Random(seed)
    return draw.choice(bases), draw.choice(references)


def shards(requests: Sequence[Request], size: int) -> list[tuple[Request, ...]]:
    """Fixed units of work: runs of ``size`` requests of one defect, the last one shorter."""
    units: list[tuple[Request, ...]] = []
    for defect in dict.fromkeys(r.defect for r in requests):
        same = [r for r in requests if r.defect == defect]
        units += [tuple(same[i : i + size]) for i in range(0, len(same), size)]
    return units
