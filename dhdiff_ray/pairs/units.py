"""What there is of a category's pairs, what is missing, and what they are made with (contracts on disk).

Decided: a unit is always made whole, filled up with the requests a longer plan would have, so that the number of pairs
asked for, like the number of workers, changes no pixel; pairs of two models or settings never share a folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dhdiff_ray.config import SynthesizeConfig
from dhdiff_ray.pairs.intact import FILES, damaged_normals, looked_through, tries_file
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.pairs.start import start_told
from dhdiff_ray.pairs.writer import (
    PAIRS,
    SETTINGS,
    PairWriter,
    finished_file,
    pair_bytes,
    read_pair_rows,
    settings_file,
)
from dhdiff_ray.records import Request
from dhdiff_ray.run.damage import DamagedError, promise
from dhdiff_ray.run.folder import RunFolder, as_json
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts

if TYPE_CHECKING:
    from dhdiff_ray.pairs.redraw import Judged

KEPT = "the first try that is good enough"
"""Which try of a pair is written; pairs made before there were further tries lack this among their settings."""
EXECUTION = {"pairs_per_defect", "workers", "cpus_per_worker", "gpus_per_worker", "unit_seconds"}
"""What of the settings changes no pair."""


@dataclass(frozen=True)
class Unit:
    """Requests made in one batch, and those of them whose pairs are to be written."""

    requests: tuple[Request, ...]
    missing: tuple[Request, ...]

    @property
    def category(self) -> str:
        """The category of all its requests."""
        return self.requests[0].category

    @property
    def name(self) -> str:
        """Names the unit in messages."""
        return f"{self.requests[0].defect} {self.requests[0].name} to {self.requests[-1].name}"


class Lot(ABC):
    """All pairs of one category that are wanted, and the units of work in which some are missing, in either layout."""

    facts: dict[str, Any]
    """Of the model that draws them."""
    units: Sequence[Any]
    damaged: Mapping[str, str]
    """Files that were not as they had been written -> what was wrong; their pairs are among the missing now."""

    @property
    def category(self) -> str:
        """Its name."""
        return self.facts["category"]

    @property
    @abstractmethod
    def total(self) -> int:
        """Pairs that are wanted."""

    @property
    def done(self) -> int:
        """Pairs that are there."""
        return self.total - sum(len(unit.missing) for unit in self.units)

    @abstractmethod
    def finish(self, run: Run, config_digest: str = "") -> str:
        """Complete a category whose pairs are all there.

        Args:
            run: of the pairs.
            config_digest: what rows tell of the configuration; empty for the run's as it is now.

        Returns:
            Of which defects masks stayed empty after all tries; empty if there are none.
        """


@dataclass(frozen=True)
class CategoryPairs(Lot):
    """All pairs of one category that are wanted, and the units in which some are missing."""

    facts: dict[str, Any]
    """Of the model that draws them."""
    requests: list[Request]
    units: list[Unit]
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Files that were not as they had been written -> what was wrong; their pairs are among the missing now."""
    read: bool = False
    """Whether files of an object store are read to know that."""

    @classmethod
    def of(cls, run: Run, category: str, read: bool = False) -> CategoryPairs:
        """Look at what is there, take away what is damaged, and write down what the pairs are made with.

        Args:
            run: of the pairs.
            category: whose.
            read: whether files are read on an object store too, and not their sizes alone compared.

        Raises:
            ValueError: no model, one of another split, or pairs that were made otherwise.
        """
        facts = model_facts(run.folder, category)
        run.check_same_split([facts], "the model")
        found = looked_through(run.folder, category, read)
        refuse_mixture(run, facts, bool(found.pairs))
        found.remove(run.folder)
        return cls(facts, *units_of(run, category, found.pairs), found.damaged, read)

    @property
    def total(self) -> int:
        """Pairs that are wanted."""
        return len(self.requests)

    def finish(self, run: Run, config_digest: str = "") -> str:
        """As :meth:`Lot.finish`: real normal images beside the pairs, then their rows."""
        split, writer = run.category(self.category), PairWriter(run.folder)
        train, test = ([s for s in side if s.is_good] for side in (split.train, split.test))
        for name in damaged_normals(run.folder, self.category, self.read):
            run.folder.delete(name)
        writer.write_normals(self.category, train, test, run.config.data.resolution)
        told = made_with(run, self.facts) | {"config_digest": config_digest or run.config.digest()}
        tries = kept_tries(run.folder, self.requests, run.config.synthesize.shard_size)
        writer.finish(self.category, self.requests, told, tries, marked=True)
        return empty_masks(read_pair_rows(run.folder, self.category))


def made_with(run: Run, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What every row of a category tells of its model, split and control."""
    told = {
        "control": "raw_mask" if run.config.synthesize.control else None,
        "weights_sha256": facts["weights_sha256"],
        "split_digest": run.category(facts["category"]).digest,
    }
    return told | ({"foundation_sha256": facts["foundation"]["weights_sha256"]} if "foundation" in facts else {})


def refuse_full_disk(run: Run, pairs: int) -> None:
    """Fail before anything is made where the disk cannot hold it; an object store has no such limit.

    Raises:
        ValueError: it says how much is wanted and how much there is.
    """
    need, free = pairs * pair_bytes(run.config.data.resolution), run.folder.free_bytes()
    if free is not None and need > free:
        raise ValueError(
            f"{pairs} pairs need about {need / 1e9:.1f} GB and {run.folder.uri} has {free / 1e9:.1f} GB left; "
            "make room, ask for fewer (-n) or choose another --storage"
        )


def surely_fits(run: Run, categories: Sequence[str]) -> bool:
    """Whether all pairs of these categories fit on the disk, even if none were there yet."""
    free = run.folder.free_bytes()
    defects = len([one for one in run.split.defects() if one[0] in set(categories)])
    size = run.config.synthesize.shard_size
    most = defects * -(-run.config.synthesize.pairs_per_defect // size) * size
    return free is None or most * pair_bytes(run.config.data.resolution) <= free


def units_of(run: Run, category: str, there: dict[str, dict[int, bool]]) -> tuple[list[Request], list[Unit]]:
    """All requests of a category, those of an earlier, longer run included, and the units with a pair to make."""
    settings = run.config.synthesize
    size, asked = settings.shard_size, settings.pairs_per_defect
    extent = {defect: max([asked, *(index + 1 for index in pairs)]) for defect, pairs in there.items()}
    longest = -(-max([asked, *extent.values()]) // size) * size
    whole = run.config.model_copy(update={"synthesize": settings.model_copy(update={"pairs_per_defect": longest})})
    wanted: list[Request] = []
    units: list[Unit] = []
    for shard in shards(plan(whole, run.split, category), size):
        defect = shard[0].defect
        requests = [request for request in shard if request.index < extent.get(defect, asked)]
        missing = tuple(request for request in requests if not there.get(defect, {}).get(request.index))
        wanted += requests
        if missing:
            units.append(Unit(shard, missing))
    return wanted, units


def refuse_mixture(run: Run, facts: dict[str, Any], any_there: bool) -> None:
    """Write down what the pairs of a category are made with; pairs of two models or settings never share a folder.

    Raises:
        ValueError: the pairs that are there were made otherwise.
    """
    category, config, folder = facts["category"], run.config, run.folder
    sampling = config.synthesize.model_dump(mode="json", exclude=EXECUTION)
    now = {"weights_sha256": facts["weights_sha256"], "seed": config.run.seed, "kept": KEPT, **sampling}
    name = settings_file(category)
    before = folder.read_json(name) if folder.exists(name) else None
    told = folder.facts(finished_file(category)).get(SETTINGS)
    if any_there and before is None and told and told != promise(as_json(now)):
        raise DamagedError.of(folder.uri, name, "it is missing, and the pairs there were made otherwise")
    if not isinstance(before, dict | None):
        raise DamagedError.of(folder.uri, name, "it is no JSON object")
    if before is not None:  # settings that are newer than the pairs had been their defaults
        before = SynthesizeConfig().model_dump(mode="json", exclude=EXECUTION) | before
    if any_there and before is not None and before != now:
        changed = ", ".join(f"{k} = {before.get(k)!r}, now {v!r}" for k, v in now.items() if before.get(k) != v)
        raise ValueError(
            f"the pairs of {category!r} in {folder.uri} were made otherwise ({changed}); "
            f"ask for the same, or remove {PAIRS}/{category} first"
        )
    if before != now:
        if not any_there:
            folder.delete(finished_file(category))  # of pairs that are gone
        folder.write_json(name, now)


def kept_tries(folder: RunFolder, requests: Sequence[Request], size: int) -> dict[tuple[str, int], dict[str, Any]]:
    """What rows tell of the tries that were kept, by defect and index; cells of a table keep first tries, untold."""
    there = set(folder.files(f"{SETTINGS}/{requests[0].category}"))
    tries: dict[tuple[str, int], dict[str, Any]] = {}
    for shard in shards(requests, size):
        if (name := tries_file(shard[0].category, shard[0])) in there:
            rows = [{key: value for key, value in row.items() if key != FILES} for row in folder.read_json(name)]
            tries |= {(shard[0].defect, row.pop("index")): row for row in rows}
    return tries


def try_row(kept: Judged, settings: SynthesizeConfig) -> dict[str, Any]:
    """What a row tells of the try that was kept, and the index of its row."""
    request = kept.pair.request
    row: dict[str, Any] = {"index": request.index, "seed": request.seed, "attempt": request.attempt}
    if kept.iou is not None:
        row["agreement"] = round(kept.iou, 4)
    if kept.empty:
        row["empty"] = True
    return row | start_told(request, settings)


def empty_masks(rows: Iterable[dict[str, Any]]) -> str:
    """Says of which defects masks stayed empty after all tries; empty if there are none."""
    counts = Counter(row["defect"] for row in rows if row.get("empty"))
    return ", ".join(f"{number} of {defect}" for defect, number in sorted(counts.items()))
