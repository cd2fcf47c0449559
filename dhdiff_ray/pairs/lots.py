"""All pairs of one category that are wanted, in either layout, and the archives among them as units of work.

Not in the paper. Decided: an archive is a unit of work, drawn in the same batches as files of their own, so that the
layout changes no pixel; what is looked through, counted and listed is its marker, never a pair. One that is not whole
is made again from its beginning; one that is to hold more keeps what it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dhdiff_ray.pairs import archives
from dhdiff_ray.pairs.archives import MANIFEST, ROWS, TAR, Row
from dhdiff_ray.pairs.intact import archives_found
from dhdiff_ray.pairs.plan import defects_of, requests_of, shards
from dhdiff_ray.pairs.units import CategoryPairs, Lot, Unit, made_with, refuse_mixture
from dhdiff_ray.pairs.writer import (
    COUNTED,
    PAIRS,
    SETTINGS,
    PairsError,
    finished_file,
    layout_of,
    pair_bytes,
    settings_file,
    settings_promise,
)
from dhdiff_ray.records import Request
from dhdiff_ray.run.damage import promise
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts

FOLDER_PAIRS = 100_000
"""Files in one folder above which the tree of files is warned of."""


@dataclass(frozen=True)
class ArchiveUnit:
    """The pairs of one archive: those that it holds, and those to be drawn, batch after batch by one sampler."""

    category: str
    defect: str
    first: int
    """Index of its first pair."""
    held: int
    """Index before which its pairs are there."""
    stop: int
    """Index behind its last pair."""
    told: Row
    """What every row tells beside its request and try."""

    @property
    def missing(self) -> range:
        """Indices of the pairs to be made."""
        return range(self.held, self.stop)

    @property
    def name(self) -> str:
        """Names the unit in messages."""
        return f"{self.defect} {self.first:06d} to {self.stop - 1:06d}"

    @property
    def archive(self) -> str:
        """Its archive's name in the category."""
        return f"{self.defect}/{self.first:06d}"

    @property
    def marker(self) -> str:
        """Its marker's file."""
        return f"{SETTINGS}/{self.category}/{self.archive}.json"

    def is_there(self, folder: RunFolder) -> bool:
        """Whether somebody else wrote all of it meanwhile."""
        return folder.facts(self.marker).get("pairs") == self.stop - self.first

    def batches(self, run: Run) -> list[tuple[Request, ...]]:
        """The requests to be drawn together: whole batches, as a longer plan would have them."""
        size = run.config.synthesize.shard_size
        indices = range(self.held // size * size, -(-self.stop // size) * size)
        return shards(requests_of(run.config, run.category(self.category), self.category, self.defect, indices), size)

    def held_pairs(self, folder: RunFolder) -> list[tuple[Row, tuple[bytes, bytes]]]:
        """Rows and pictures that the archive held; a try that ended before its marker may have written more of them."""
        if not self.held - self.first:
            return []
        return archives.read_whole(folder, f"{PAIRS}/{self.category}", self.archive)[: self.held - self.first]

    def write(self, folder: RunFolder, held: list[tuple[Row, tuple[bytes, bytes]]]) -> None:
        """Lay down the whole archive."""
        rows, pairs = [row for row, _ in held], [pair for _, pair in held]
        assert [row["index"] for row in rows] == list(range(self.first, self.stop)), "an archive has a gap"
        empty, seeds = sum(bool(row.get("empty")) for row in rows), len({row["seed"] for row in rows})
        told = {"first": self.first, "pairs": len(rows), "seeds": seeds, "empty": empty}
        files = archives.packed(self.archive, rows, pairs)
        archives.write(folder, f"{PAIRS}/{self.category}", self.archive, self.marker, told, files)


@dataclass(frozen=True)
class ArchivedPairs(Lot):
    """All pairs of one category that are wanted, and the archives in which some are missing."""

    facts: dict[str, Any]
    """Of the model that draws them."""
    extents: dict[str, int]
    """Pairs of each defect."""
    per_archive: int
    units: list[ArchiveUnit]
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Files that were not as they had been written -> what was wrong; their pairs are among the missing now."""

    @classmethod
    def of(cls, run: Run, category: str, read: bool = False) -> ArchivedPairs:
        """Look at what is there, take away what is damaged, and write down what the pairs are made with.

        Args:
            run: of the pairs.
            category: whose.
            read: whether files are read on an object store too, and not their sizes alone compared.

        Raises:
            ValueError: no model, one of another split, or pairs that were made otherwise.
        """
        s, facts = run.config.synthesize, model_facts(run.folder, category)
        run.check_same_split([facts], "the model")
        per = archives.pairs_per_archive(pair_bytes(run.config.data.resolution), s.shard_size)
        found = archives_found(run.folder, category, read, full=per)
        refuse_mixture(run, facts, bool(found.whole))
        for name in found.doubtful:
            run.folder.delete(name)
        extents = {d: max(s.pairs_per_defect, found.extents.get(d, 0)) for d in defects_of(run.category(category))}
        told, units = made_with(run, facts), []
        for defect, extent in extents.items():
            for first in range(0, extent, per):
                stop = min(first + per, extent)
                held = first + found.whole.get(f"{defect}/{first:06d}", {"pairs": 0})["pairs"]
                units += [ArchiveUnit(category, defect, first, held, stop, told)] if held < stop else []
        return cls(facts, extents, per, units, found.damaged)

    @property
    def total(self) -> int:
        """Pairs that are wanted."""
        return sum(self.extents.values())

    def finish(self, run: Run, config_digest: str = "") -> str:
        """As :meth:`Lot.finish`: the list of archives, from their markers alone.

        Raises:
            PairsError: archives are missing, or files lie there that are none.
        """
        folder, place = run.folder, f"{PAIRS}/{self.category}"
        wanted = dict(self._wanted())
        markers = {file: told for file, told, _ in archives.read_markers(folder, f"{SETTINGS}/{self.category}") if told}
        told = {name: markers.get(f"{SETTINGS}/{self.category}/{name}.json") for name in wanted}
        whole = {name: marker for name, marker in told.items() if marker and marker["pairs"] == wanted[name]}
        there = set(folder.files(place)) - {f"{place}/{MANIFEST}"}
        expected = {f"{place}/{name}{ending}" for name in whole for ending in (TAR, ROWS)}
        if missing := sorted({*(f"{place}/{name}{TAR}" for name in wanted.keys() - whole.keys()), *(expected - there)}):
            message = f"{len(missing)} files are missing, the first is {missing[0]}"
            raise PairsError(
                f"pairs of {self.category!r} are not complete: {message}; submit synthesize again to go on"
            )
        if strangers := sorted(file for file in there - expected if file.endswith((TAR, ROWS, ".png"))):
            message = f"{len(strangers)} files are of no archive, the first is {strangers[0]}"
            raise PairsError(f"pairs of {self.category!r}: {message}; one run has one layout: remove them, or {place}")
        self._write_manifest(run, whole, config_digest or run.config.digest())
        empty = {d: sum(m["empty"] for n, m in whole.items() if n.startswith(f"{d}/")) for d in self.extents}
        return ", ".join(f"{number} of {defect}" for defect, number in sorted(empty.items()) if number)

    def _wanted(self) -> Iterator[tuple[str, int]]:
        """Every archive by name with its pairs, by defect and index."""
        for defect, extent in self.extents.items():
            for first in range(0, extent, self.per_archive):
                yield f"{defect}/{first:06d}", min(self.per_archive, extent - first)

    def _write_manifest(self, run: Run, whole: Mapping[str, Row], config_digest: str) -> None:
        """Write the list of archives, then what is counted of it, as of a tree of files."""
        listed = {name: {key: marker[key] for key in ("pairs", "tar", "rows")} for name, marker in whole.items()}
        data = json.dumps({"config_digest": config_digest, "archives": listed}, ensure_ascii=False).encode() + b"\n"
        run.folder.write_bytes(f"{PAIRS}/{self.category}/{MANIFEST}", data)
        seeds = sum(marker["seeds"] for marker in whole.values())
        counts = {"defects": self.extents, "weights": [self.facts["weights_sha256"]], "seeds": seeds}
        told = {MANIFEST: promise(data), COUNTED: counts}
        run.folder.write_json(finished_file(self.category), told | settings_promise(run.folder, self.category))


def lot_of(run: Run, category: str, read: bool = False) -> Lot:
    """What there is of a category's pairs and what is missing, in the run's layout; what is damaged is taken away.

    Args:
        run: of the pairs.
        category: whose.
        read: whether files are read on an object store too, and not their sizes alone compared.

    Raises:
        ValueError: see :meth:`CategoryPairs.of`; or the run's pairs lie in the other layout.
    """
    return (ArchivedPairs if run.config.synthesize.layout == "webdataset" else CategoryPairs).of(run, category, read)


def batches_of(unit: Unit | ArchiveUnit, size: int) -> int:
    """Batches of ``size`` requests that are drawn for a unit: whole ones, also where some of their pairs are there."""
    return -(-unit.stop // size) - unit.held // size if isinstance(unit, ArchiveUnit) else 1


def refuse_two_layouts(run: Run) -> None:
    """One run has one layout; what the first category with pairs was made in tells it of all.

    Raises:
        ValueError: the pairs that are there lie in the other.
    """
    asked = run.config.synthesize.layout
    for category in run.folder.folders(PAIRS):
        stored = run.folder.facts(settings_file(category))
        if there := stored.get("layout", "mvtec") if stored else layout_of(run.folder, category):
            if there != asked:
                raise ValueError(
                    f"the pairs in {run.folder.uri} lie in the layout {there!r}, and one run has one layout: ask for "
                    f"synthesize.layout={there}, choose another --run, or remove the folder {PAIRS} first"
                )
            return


def crowded(run: Run) -> str:
    """What to tell of folders that will hold more files than file systems and stores bear; empty for nothing."""
    s = run.config.synthesize
    if s.layout == "webdataset" or s.pairs_per_defect <= FOLDER_PAIRS:
        return ""
    return (
        f"{s.pairs_per_defect} pairs per defect are as many files in one folder; above {FOLDER_PAIRS} take a new run "
        "with --set synthesize.layout=webdataset"
    )
