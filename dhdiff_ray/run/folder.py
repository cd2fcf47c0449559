"""A run is one folder, on any URI that pyarrow.fs opens (a local path, s3://, gs://).

Writes are atomic: on a local disk a temporary file, fsync and rename; an object store's PUT is atomic by itself.
Nothing here knows what the files mean.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from dhdiff_ray.run.damage import DamagedError

CANNOT_RENAME = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
"""What mounted object stores and the like answer a rename or a link with."""
SINGLE_PUT = "allow_delayed_open=true"
"""Option of s3:// that writes a small file by one request, where an upload in parts takes three."""
UNFINISHED = ".part-"
"""How the name of a file begins while it is written on a disk; one of a process that was killed stays."""
READ_BYTES = 2**24
"""What of a large file is held while it is read through."""
NAME_BYTES = 200
"""Longest name of a run: file systems take 255, and tables add a row's name."""
LEAST_ROOM = 2**20
"""Bytes free on a disk that is as good as full."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; names are relative posix paths such as ``models/bottle``."""

    uri: str
    """Absolute local path, or URI with its options (``?endpoint_override=...``) at the end; no trailing slash."""

    @classmethod
    def of(cls, storage: str, run: str) -> RunFolder:
        """The folder of ``run`` under ``storage``; a local storage path is made absolute."""
        if not run or "/" in run or run.startswith("."):
            raise ValueError(f"run name {run!r} must be one folder name; pass --run NAME")
        if (size := len(run.encode())) > NAME_BYTES:
            raise ValueError(f"run name {run[:20]}... has {size} bytes, and {NAME_BYTES} fit; shorten --run NAME")
        return cls.at(storage).below(run)

    @classmethod
    def at(cls, place: str) -> RunFolder:
        """Any folder: a local path, which is made absolute, or a URI, with its options after a question mark."""
        if "://" not in place:
            return cls(str(Path(place).expanduser().resolve()))
        base, mark, options = place.partition("?")
        return cls(base.rstrip("/") + mark + options)

    def below(self, name: str) -> RunFolder:
        """The folder ``name`` inside this one; the options of a URI stay at its end."""
        if "://" not in self.uri:
            return RunFolder(f"{self.uri.rstrip('/')}/{name}")
        base, mark, options = self.uri.partition("?")
        return RunFolder(f"{base}/{name}{mark}{options}")

    @property
    def storage(self) -> str:
        """The place this folder lies in: undoes :meth:`below`."""
        base, mark, options = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return base.rpartition("/")[0] + mark + options

    @cached_property
    def _opened(self) -> tuple[pafs.FileSystem, str]:
        uri = self.uri
        if uri.startswith("s3://") and SINGLE_PUT.split("=")[0] not in uri:
            uri += ("&" if "?" in uri else "?") + SINGLE_PUT
        return pafs.FileSystem.from_uri(uri)

    @property
    def is_local(self) -> bool:
        """Whether the folder lies on a file system this process reaches by path."""
        return isinstance(self._opened[0], pafs.LocalFileSystem)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The file system that the folder lies on."""
        return self._opened[0]

    def path(self, name: str = "") -> str:
        """Path of ``name`` inside the opened file system."""
        return f"{self._opened[1]}/{name}".rstrip("/")

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        return self._opened[0].get_file_info(self.path(name)).type != pafs.FileType.NotFound

    def files(self, name: str = "") -> Iterator[str]:
        """All files below ``name``, sorted, relative to the run."""
        yield from self.sizes(name)

    def sizes(self, name: str = "") -> dict[str, int]:
        """All files below ``name``, sorted, relative to the run, with their sizes in bytes."""
        filesystem, base = self._opened
        selector = pafs.FileSelector(self.path(name), recursive=True, allow_not_found=True)
        infos = (i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
        return dict(sorted((i.path[len(base) :].lstrip("/"), i.size) for i in infos))

    def stamps(self, name: str = "") -> dict[str, tuple[int, int]]:
        """All files below ``name``, relative to the run, with size in bytes and date: equal where nothing changed."""
        filesystem, base = self._opened
        selector = pafs.FileSelector(self.path(name), recursive=True, allow_not_found=True)
        infos = (i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File)
        return dict(sorted((i.path[len(base) :].lstrip("/"), (i.size, i.mtime_ns or 0)) for i in infos))

    def folders(self, name: str = "") -> list[str]:
        """Sorted names of the folders directly in ``name``; looks into none of them."""
        selector = pafs.FileSelector(self.path(name), recursive=False, allow_not_found=True)
        infos = self._opened[0].get_file_info(selector)
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def read_bytes(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            FileNotFoundError: there is no such file; the message has its full path.
        """
        with self._opened[0].open_input_file(self.path(name)) as file:  # a stream asks a store for 256 kB at a time
            return file.read()

    def read_part(self, name: str, start: int, size: int) -> bytes:
        """So many bytes of one file from ``start`` on, fewer where it ends.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._opened[0].open_input_file(self.path(name)) as file:
            return file.read_at(size, start)

    def sha256(self, name: str) -> str:
        """SHA-256 of one file, which is never held as a whole.

        Raises:
            FileNotFoundError: there is no such file.
        """
        digest = hashlib.sha256()
        with self._opened[0].open_input_stream(self.path(name)) as stream:
            while part := stream.read(READ_BYTES):  # each is a request to an object store
                digest.update(part)
        return digest.hexdigest()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write one file so that a reader sees either nothing, the old or the whole new content.

        Raises:
            ValueError: the folder lies on a storage that cannot rename.
        """
        filesystem, _ = self._opened
        target = self.path(name)
        if not self.is_local:
            if filesystem.type_name != "s3":  # which has no folders: to make each on the way is a request each
                filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with filesystem.open_output_stream(target) as stream:
                stream.write(data)
            return
        with _written_beside(target, data) as temporary, self._appearing():
            os.replace(temporary, target)  # noqa: PTH105

    def read_json(self, name: str) -> Any:
        """Content of one JSON file.

        Raises:
            DamagedError: it is no JSON; the message names it and what to type.
        """
        try:
            return json.loads(self.read_bytes(name))
        except (ValueError, RecursionError) as error:
            raise DamagedError.of(self.uri, name, f"no JSON: {error}") from None

    def readable(self, name: str) -> Any:
        """Content of one JSON file; None where there is none, or a damaged one that is to be written anew."""
        with contextlib.suppress(DamagedError):
            return self.read_json(name) if self.exists(name) else None
        return None

    def facts(self, name: str) -> dict[str, Any]:
        """Content of one JSON object; empty where there is none, or a damaged one that is to be written anew."""
        content = self.readable(name)
        return content if isinstance(content, dict) else {}

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, indented, keys in the order given."""
        self.write_bytes(name, as_json(value))

    def delete(self, name: str) -> None:
        """Remove a file or folder; silent if it is not there."""
        filesystem, _ = self._opened
        kind = filesystem.get_file_info(self.path(name)).type
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(self.path(name))
        elif kind == pafs.FileType.File:
            filesystem.delete_file(self.path(name))

    def free_bytes(self) -> int | None:
        """Room on the disk the folder is or will be on; None for an object store."""
        if not self.is_local:
            return None
        place = Path(self.path())
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def create(self, name: str, data: bytes) -> bool:
        """Write one file unless it is there; says whether it was written.

        On a local disk no two writers both hear yes. An object store is asked first and written then: two writers
        within a moment both hear yes, so whoever needs to be alone reads again what it wrote; pyarrow has no
        conditional writes (apache/arrow#44281).
        """
        target = self.path(name)
        if not self.is_local:
            if self.exists(name):
                return False
            self.write_bytes(name, data)
            return True
        with _written_beside(target, data) as temporary:
            try:
                with self._appearing():
                    os.link(temporary, target)
            except FileExistsError:
                return False
        return True

    @contextlib.contextmanager
    def _appearing(self) -> Iterator[None]:
        """Says what to do where a disk does not let a written file appear under its name."""
        try:
            yield
        except OSError as error:
            if error.errno not in CANNOT_RENAME:
                raise
            raise ValueError(
                f"{self.uri} lies on a storage that cannot rename and link files ({error.strerror}), so that they "
                "appear as a whole; give --storage a disk, or the store's own address (s3://..., gs://...)"
            ) from None

    def upload(self, folder: str | Path, name: str) -> None:
        """Copy a local folder to ``name``, replacing what is there."""
        filesystem, _ = self._opened
        self.delete(name)
        filesystem.create_dir(self.path(name), recursive=True)
        pafs.copy_files(str(folder), self.path(name), pafs.LocalFileSystem(), filesystem)

    def local(self, name: str) -> Path:
        """A local path with the content of folder ``name``, which stays as long as this process.

        A remote one is copied to a temporary folder, again each time; see :meth:`fetched` for a copy that goes sooner.
        """
        if not self.exists(name):
            raise FileNotFoundError(f"{self.uri}/{name} is not there")
        if self.is_local:
            return Path(self.path(name))
        target = Path(tempfile.mkdtemp(prefix="dhdiff-"))
        pafs.copy_files(self.path(name), str(target), self._opened[0], pafs.LocalFileSystem())
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        return target

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The same while the block runs: a copy of a remote folder is gone afterwards."""
        place = self.local(name)
        try:
            yield place
        finally:
            if not self.is_local:
                shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this machine that is gone afterwards.

    Raises:
        OSError: its disk is full; it says what to do, where whoever wrote may not even say which disk it was.
    """
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as place:
        try:
            yield Path(place)
        except Exception as error:
            if os.strerror(errno.ENOSPC) not in str(error) or shutil.disk_usage(place).free > LEAST_ROOM:
                raise
            words = f"the temporary folder {tempfile.gettempdir()} is full; make room there, or set TMPDIR to another"
            raise OSError(errno.ENOSPC, words) from error


def as_json(value: Any) -> bytes:
    """What a JSON file of a run holds: indented, keys in the order given."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def _written_beside(target: str, data: bytes) -> Iterator[str]:
    """A temporary file with the data on the target's disk, which is gone afterwards unless it was renamed."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=Path(target).parent, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)
