"""Many pairs in two files: a tar that WebDataset's readers open, and a Parquet file of their rows (contracts on disk).

Not in the paper. Decided: an archive holds consecutive pairs of one defect, 512 at most and never 256 MB, cut by size
of image and batch alone, so that its bytes depend on no worker and no restart; a marker with size and hash of both is
written last, so that what has one is whole. Nothing here knows who draws pairs.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from dhdiff_ray.run.damage import DamagedError, promise, promise_of
from dhdiff_ray.run.folder import RunFolder

Row = dict[str, Any]
MOST_PAIRS = 512
"""Pairs in one archive, at most: a million are some 2,000 archives, and a sampler that dies loses half a thousand."""
MOST_BYTES = 256 * 10**6
BESIDE = 8192
"""Bytes of a tar per pair beside its pictures, at most: three headers with their padding, and the row."""
TAR, ROWS = ".tar", ".parquet"
MANIFEST = "archives.json"
"""A finished category's list of archives, with size and hash of each file."""
FILES = "files"
"""What of a row is about files and goes into no metadata; in an archive's rows: its tar, and where both lie in it."""
ITSELF = "marker"
"""What a marker tells of itself: size and hash of all else in it."""
THREADS = 8
_SPAN = pa.list_(pa.int64(), 2)
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("file_name", "mask_file_name", "category", "defect"), pa.string()),
        **dict.fromkeys(("index", "seed"), pa.int64()),
        **dict.fromkeys(("prompt", "base", "reference"), pa.string()),
        "attempt": pa.int64(),
        "agreement": pa.float64(),
        "empty": pa.bool_(),
        "start": pa.string(),
        "strength": pa.float64(),
        "placement_seed": pa.int64(),
        **dict.fromkeys(("control", "weights_sha256", "split_digest", "foundation_sha256"), pa.string()),
        FILES: pa.struct({"tar": pa.string(), "image": _SPAN, "mask": _SPAN}),
    }
)
"""Columns of every archive's rows, so that the files of all categories open as one table."""
OPTIONAL = {"agreement", "empty", "start", "strength", "placement_seed", "foundation_sha256"}
"""Columns that a row lacks where they are null."""


def pairs_per_archive(pair_bytes: int, batch: int) -> int:
    """Pairs of one archive: whole batches, as many as surely fit.

    Args:
        pair_bytes: of a pair's two pictures, at most.
        batch: pairs that are drawn together.

    Raises:
        ValueError: not even one batch fits.
    """
    fit = min(max(MOST_PAIRS, batch), MOST_BYTES // (pair_bytes + BESIDE)) // batch * batch
    if not fit:
        raise ValueError(
            f"{batch} pairs of up to {pair_bytes / 1e6:.0f} MB do not fit into one archive of {MOST_BYTES / 1e6:.0f} "
            f"MB: set synthesize.shard_size to {max(1, MOST_BYTES // (pair_bytes + BESIDE))} at most, or "
            "synthesize.layout = mvtec"
        )
    return fit


def key_of(row: Row) -> str:
    """A pair's key: WebDataset ends it at the first full stop, and takes folders before it as part of it."""
    return f"{row['category']}/{row['defect']}/{row['index']:06d}".replace(".", "_")


def add_pair(tar: tarfile.TarFile, row: Row, image: bytes, mask: bytes) -> dict[str, list[int]]:
    """Add ``<key>.image.png``, ``<key>.json`` and ``<key>.mask.png``; where both pictures lie: [offset, bytes]."""
    record = {name: value for name, value in row.items() if name != FILES}
    line = json.dumps(record, sort_keys=True, ensure_ascii=False).encode()
    spans: dict[str, list[int]] = {}
    for ending, data in (("image.png", image), ("json", line), ("mask.png", mask)):
        info = tarfile.TarInfo(f"{key_of(row)}.{ending}")
        info.size = len(data)  # times, owners and modes keep tarfile's fixed defaults
        tar.addfile(info, io.BytesIO(data))
        blocks = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        spans[ending.removesuffix(".png")] = [tar.offset - blocks, len(data)]
    return {kind: spans[kind] for kind in ("image", "mask")}


def packed(name: str, rows: Sequence[Row], pairs: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Tar and Parquet file of an archive; the same pairs give the same bytes.

    Args:
        name: of the archive in its category, ``<defect>/NNNNNN``.
        rows: of its pairs, by index.
        pairs: image and mask of each, as PNG.
    """
    assert not {key for row in rows for key in row} - set(SCHEMA.names), "a column is missing in SCHEMA"
    buffer, table = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row, (image, mask) in zip(rows, pairs, strict=True):
            table.append({**row, FILES: {"tar": f"{name}{TAR}", **add_pair(tar, row, image, mask)}})
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(table, SCHEMA), sink)
    return buffer.getvalue(), sink.getvalue().to_pybytes()


def write(folder: RunFolder, place: str, name: str, marker: str, told: Row, files: tuple[bytes, bytes]) -> None:
    """Lay down an archive: tar, rows, and last the marker that makes it count.

    Args:
        folder: the run.
        place: folder of its category's pairs.
        name: of the archive, ``<defect>/NNNNNN``.
        marker: the marker's file.
        told: what the marker says beside size and hash of both files.
        files: tar and Parquet file, see :func:`packed`.
    """
    folder.delete(marker)  # never an old marker beside new files
    folder.write_bytes(f"{place}/{name}{TAR}", files[0])
    folder.write_bytes(f"{place}/{name}{ROWS}", files[1])
    told = {**told, "tar": promise(files[0]), "rows": promise(files[1])}
    folder.write_json(marker, {**told, ITSELF: promise_of(told)})


def read_rows(folder: RunFolder, place: str, name: str, told: Mapping[str, Any] | None = None) -> list[Row]:
    """The rows of one archive, by index.

    Raises:
        DamagedError: its Parquet file is gone, or is not the one that the marker or manifest tells of.
    """
    file = f"{place}/{name}{ROWS}"
    try:
        data = folder.read_bytes(file)
        if told and promise(data) != told["rows"]:
            raise DamagedError.of(folder.uri, file, "another content than was written")
        rows = parquet.read_table(pa.BufferReader(data), schema=SCHEMA).to_pylist()
    except FileNotFoundError:
        raise DamagedError.of(folder.uri, file, "it is missing") from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedError.of(folder.uri, file, f"no Parquet: {error}") from None
    return [{key: value for key, value in row.items() if value is not None or key not in OPTIONAL} for row in rows]


def read_whole(folder: RunFolder, place: str, name: str) -> list[tuple[Row, tuple[bytes, bytes]]]:
    """Rows of an archive, without what is about its files, and its pictures: the tar is read at once.

    Raises:
        DamagedError: see :func:`read_rows`.
    """
    rows, tar = read_rows(folder, place, name), folder.read_bytes(f"{place}/{name}{TAR}")
    spans = [row.pop(FILES) for row in rows]
    cut = [tuple(tar[at : at + size] for at, size in (span["image"], span["mask"])) for span in spans]
    return [(row, (image, mask)) for row, (image, mask) in zip(rows, cut, strict=True)]


def read_manifest(folder: RunFolder, place: str, manifest: Mapping[str, Any]) -> list[Row]:
    """The rows of all archives of a category, by defect and index, each with the configuration's digest.

    Raises:
        DamagedError: see :func:`read_rows`.
    """
    told = manifest["archives"]
    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(lambda name: read_rows(folder, place, name, told[name]), told)
        return [{**row, "config_digest": manifest["config_digest"]} for part in parts for row in part]


def read_pictures(folder: RunFolder, place: str, row: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Image and mask that an archive's row names, as PNG: one read of the tar.

    Raises:
        DamagedError: the tar is gone or cut short.
    """
    at, name = row[FILES], f"{place}/{row[FILES]['tar']}"
    (start, size), (mask_start, mask_size) = at["image"], at["mask"]
    try:
        data = folder.read_part(name, start, mask_start + mask_size - start)
    except (FileNotFoundError, OSError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise DamagedError.of(folder.uri, name, "it is missing" if missing else error) from None
    if len(data) < mask_start + mask_size - start:
        raise DamagedError.of(folder.uri, name, "it is cut short")
    return data[:size], data[mask_start - start :]


def read_markers(folder: RunFolder, place: str) -> Iterator[tuple[str, Row | None, str]]:
    """Every archive's marker below a folder: its file, what it says, or why it says nothing."""

    def read(file: str) -> tuple[str, Row | None, str]:
        try:
            told = folder.read_json(file)
        except DamagedError as error:
            return file, None, str(error)
        if not isinstance(told, dict) or not {"first", "pairs", "seeds", "empty", "tar", "rows"} <= told.keys():
            return file, None, ""  # of a batch of the other layout, whose pairs were removed
        if told.pop(ITSELF, None) != promise_of(told):
            return file, None, "another content than was written"
        if not file.endswith(f"/{told['first']:06d}.json"):
            return file, None, "it is another archive's, renamed"
        return file, told, ""

    files = [file for file in folder.files(place) if file.count("/") == place.count("/") + 2]
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(read, files)
