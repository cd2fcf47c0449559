"""Which pairs of a category are on disk as they were written, and which are damaged (contracts on disk).

A unit's marker, written before its pairs, tells which try of each request was kept, and size and hash of both files
and of what it tells itself; an archive's is written behind its two files, and tells the same of them and
of itself.
Decided: on a disk every file is read and compared; on an object store, where each is a request, a job compares sizes
alone and ``verify`` reads. Pairs whose marker has no hashes yet count where both files are there and end as a PNG ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dhdiff_ray.pairs.archives import FILES, MANIFEST, ROWS, TAR, Row, read_markers
from dhdiff_ray.pairs.writer import PAIRS, SETTINGS, finished_file
from dhdiff_ray.records import GOOD, Request
from dhdiff_ray.run.damage import DamagedError, Promise, promise, promise_of
from dhdiff_ray.run.folder import UNFINISHED, RunFolder

PNG_END = b"IEND\xaeB`\x82"
"""Last bytes of every PNG."""
ROW = "row"
"""Among what a marker's row tells of files: size and hash of the rest of the row."""
THREADS = 4


@dataclass(frozen=True)
class Found:
    """What was found of a category's pairs."""

    pairs: dict[str, dict[int, bool]] = field(default_factory=dict)
    """By defect and index whether it is a whole pair; an image or mask alone, or a damaged one, is none."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Damaged files -> what is wrong with them; a mask without its image is only unfinished."""
    doubtful: tuple[str, ...] = ()
    """Images of pairs that are not whole, and files of no pair."""

    def remove(self, folder: RunFolder) -> None:
        """Remove images of incomplete pairs and files of no pair, so that every image left belongs to a whole pair."""
        for name in self.doubtful:
            folder.delete(name)


def existing(folder: RunFolder, category: str) -> dict[str, dict[int, bool]]:
    """The pairs found of each defect: index -> whether the pair is whole."""
    return looked_through(folder, category).pairs


def damaged_files(folder: RunFolder, category: str, read: bool = False) -> dict[str, str]:
    """Files of a category's pairs that are not as they were written, in either layout -> what is wrong with them."""
    layout = folder.facts(f"{SETTINGS}/{category}.json").get("layout")
    archived = layout == "webdataset" if layout else any(f.endswith(ROWS) for f in folder.files(f"{PAIRS}/{category}"))
    return (archives_found if archived else looked_through)(folder, category, read).damaged


def looked_through(folder: RunFolder, category: str, read: bool = False) -> Found:
    """Compare the pairs found of a category with what was written; ``read`` reads files on any storage."""
    sizes = folder.sizes(f"{PAIRS}/{category}")
    damaged: dict[str, str] = {}
    told = dict(_promises(folder, category, damaged))
    needed = _has_markers(folder, category)
    listed = _listed(sizes)
    both = {key: (files, told.get(key)) for key, files in listed.items() if len(files) == 2}
    problems = _problems(folder, sizes, both, needed, read or folder.is_local)
    pairs: dict[str, dict[int, bool]] = {}
    doubtful = list(damaged)  # markers; their units write them again
    for key, files in listed.items():
        whole = key in both and key not in problems
        damaged |= problems.get(key, {})
        if key not in both and needed and key not in told:  # renamed, or somebody else's
            damaged |= dict.fromkeys(files.values(), "no unit has such a file")
            doubtful += files.values()
            continue
        if key not in both and "image" in files:
            damaged[files["image"]] = "its mask is missing"
        if not whole and "image" in files:
            doubtful.append(files["image"])
        pairs.setdefault(key[0], {})[key[1]] = whole
    return Found(pairs, damaged, tuple(doubtful))


def marker_row(row: Mapping[str, Any], files: Mapping[str, Promise]) -> dict[str, Any]:
    """A marker's row about one pair: what its metadata will tell, and size and hash of that and of both files."""
    return {**row, FILES: {**files, ROW: promise_of(row)}}


def tries_file(category: str, first: Request) -> str:
    """A unit's marker: which try of each of its requests was kept, and size and hash of what was written."""
    return f"{SETTINGS}/{category}/{first.defect}/{first.name}.json"


@dataclass(frozen=True)
class FoundArchives:
    """What lies there of a category's archives."""

    whole: dict[str, Row] = field(default_factory=dict)
    """By name what their markers say."""
    extents: dict[str, int] = field(default_factory=dict)
    """By defect the index behind the last pair that a marker tells of, whole or not."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Files that are not as they were written -> what is wrong."""
    doubtful: tuple[str, ...] = ()
    """Files that belong to no whole archive."""


def archives_found(folder: RunFolder, category: str, read: bool = False, full: int = 0) -> FoundArchives:
    """Compare a category's archives with their markers.

    Args:
        folder: of the run.
        category: whose archives.
        read: whether files are read on an object store too, and not their sizes alone compared.
        full: archives of fewer pairs may be packed anew, with new hashes, and are read in any case.
    """
    read = read or folder.is_local
    place, settings = f"{PAIRS}/{category}", f"{SETTINGS}/{category}"
    sizes = folder.sizes(place)
    found, doubtful = FoundArchives(), []
    told: dict[str, Row] = {}
    for file, marker, problem in read_markers(folder, settings):
        name = file[len(settings) + 1 :].removesuffix(".json")
        if marker is None:
            doubtful.append(file)
            found.damaged.update({file: problem} if problem else {})
            continue
        told[name] = marker
        defect, first = name.rsplit("/", 1)
        found.extents[defect] = max(found.extents.get(defect, 0), int(first) + marker["pairs"])
    with ThreadPoolExecutor(THREADS) as pool:
        problems = pool.map(
            lambda name: _archive_problems(
                folder, f"{place}/{name}", sizes, told[name], read or told[name]["pairs"] < full
            ),
            told,
        )
        for name, wrong in zip(told, problems, strict=True):
            if wrong is None:
                found.whole[name] = told[name]
            else:
                found.damaged.update(wrong)
                doubtful.append(f"{settings}/{name}.json")
    for name, listed in folder.facts(f"{place}/{MANIFEST}").get("archives", {}).items():
        defect, first = name.rsplit("/", 1)
        found.extents[defect] = max(found.extents.get(defect, 0), int(first) + listed["pairs"])
        if name not in told and f"{settings}/{name}.json" not in found.damaged and f"{place}/{name}{TAR}" in sizes:
            found.damaged[f"{place}/{name}{TAR}"] = "its marker is missing"
    known = {f"{place}/{name}{ending}" for name in found.whole for ending in (TAR, ROWS)}
    left = [file for file in sizes if file.rsplit("/", 1)[1].startswith(UNFINISHED)]
    doubtful += [*left, *(file for file in sizes if file.endswith((TAR, ROWS)) and file not in known)]
    return FoundArchives(found.whole, found.extents, found.damaged, tuple(doubtful))


def damaged_normals(folder: RunFolder, category: str, read: bool = False) -> list[str]:
    """Normal images beside the pairs that are not as they were written; without a marker those that are cut."""
    read = read or folder.is_local
    sizes = {name: size for name, size in folder.sizes(f"{PAIRS}/{category}").items() if f"/{GOOD}/" in name}
    start, told = len(f"{PAIRS}/{category}/"), folder.facts(finished_file(category))
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = pool.map(lambda name: _wrong(folder, name, sizes[name], told.get(name[start:]), read), sizes)
    return [name for name, problem in zip(sizes, wrong, strict=True) if problem]


def _listed(sizes: Mapping[str, int]) -> dict[tuple[str, int], dict[str, str]]:
    """Files of pairs by defect and index: ``image`` and ``mask``."""
    pairs: dict[tuple[str, int], dict[str, str]] = {}
    for file in sizes:
        parts = file.split("/")  # pairs/<category>/{test,ground_truth}/<defect>/NNNNNN[_mask].png
        stem = parts[-1].removesuffix(".png").removesuffix("_mask")
        if len(parts) == 5 and parts[2] in ("test", "ground_truth") and parts[3] != GOOD and stem.isdecimal():
            kind = "image" if parts[2] == "test" else "mask"
            pairs.setdefault((parts[3], int(stem)), {})[kind] = file
    return pairs


def _promises(
    folder: RunFolder, category: str, damaged: dict[str, str]
) -> Iterator[tuple[tuple[str, int], dict[str, Promise]]]:
    """What markers tell of each pair's files, by defect and index; markers that cannot be read are told."""
    for name in folder.files(f"{SETTINGS}/{category}"):
        parts = name.split("/")
        if len(parts) != 4:
            continue
        try:
            rows = folder.read_json(name)
            if f"{rows[0]['index']:06d}.json" != parts[3]:
                raise DamagedError("it is another unit's, renamed")
            for row in rows:
                rest = {key: value for key, value in row.items() if key != FILES}
                if row.get(FILES, {}).get(ROW, promise_of(rest)) != promise_of(rest):
                    raise DamagedError("another content than was written")
            yield from [((parts[2], row["index"]), row.get(FILES, {})) for row in rows]
        except (DamagedError, LookupError, TypeError, ValueError, AttributeError) as error:
            damaged[name] = str(error)


def _has_markers(folder: RunFolder, category: str) -> bool:
    """Whether the category's pairs were made with a marker per unit; cells of a table have none."""
    name = f"{SETTINGS}/{category}.json"
    try:
        return folder.exists(name) and "kept" in folder.read_json(name)
    except DamagedError:
        return False


def _problems(
    folder: RunFolder,
    sizes: Mapping[str, int],
    pairs: Mapping[tuple[str, int], tuple[dict[str, str], dict[str, Promise] | None]],
    needed: bool,
    read: bool,
) -> dict[tuple[str, int], dict[str, str]]:
    """What is wrong with pairs of which both files are there: file -> problem."""

    def look(key: tuple[str, int]) -> dict[str, str]:
        files, told = pairs[key]
        if told is None and needed:
            return {files["image"]: "which try it is was not written down"}
        wrong = {file: _wrong(folder, file, sizes[file], (told or {}).get(kind), read) for kind, file in files.items()}
        return {file: problem for file, problem in wrong.items() if problem}

    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(pairs, pool.map(look, pairs), strict=True))
    return {key: wrong for key, wrong in found.items() if wrong}


def _wrong(folder: RunFolder, name: str, size: int, told: Promise | None, read: bool) -> str:
    """What is wrong with one PNG; empty for nothing."""
    if told and size != told[0]:
        return f"{size} bytes, not {told[0]}"
    if not size:
        return "it is empty"
    if not read:
        return ""
    data: Any = folder.read_bytes(name)
    if told:
        return "" if promise(data)[1] == told[1] else "another content than was written"
    return "" if data.endswith(PNG_END) else "it is cut"


def _archive_problems(
    folder: RunFolder, stem: str, sizes: Mapping[str, int], told: Row, read: bool
) -> dict[str, str] | None:
    """What is wrong with an archive's files; None where nothing is, and nothing to tell where both are gone."""
    promises: dict[str, Promise] = {f"{stem}{TAR}": told["tar"], f"{stem}{ROWS}": told["rows"]}
    there = [file for file in promises if file in sizes]
    if len(there) < len(promises):
        other = {TAR: "its rows are missing", ROWS: "its tar is missing"}
        return {file: other[file[len(stem) :]] for file in there}
    wrong = {file: _wrong_archive(folder, file, sizes[file], promised, read) for file, promised in promises.items()}
    return {file: problem for file, problem in wrong.items() if problem} or None


def _wrong_archive(folder: RunFolder, file: str, size: int, told: Promise, read: bool) -> str:
    if size != told[0]:
        return f"{size} bytes, not {told[0]}"
    if read and folder.sha256(file) != told[1]:
        return "another content than was written"
    return ""
