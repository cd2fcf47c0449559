"""A dataset on an object store, copied once to this machine.

Not in the paper. What we decided: loaders read plain folders, so a URI is copied below the user's cache the first time
a machine needs it and is then taken as it is; its name there follows from the URI, the same on every machine; a copy
counts as whole by a mark written last. Where the store's content changed, delete the copy.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from filelock import FileLock
from pyarrow import fs as pafs

from dhdiff_ray.data.registry import DatasetError

WHOLE = ".whole"
CACHE = "DHDIFF_CACHE"
"""Environment variable with the folder of copies; else ``~/.cache/dhdiff-ray``."""


def local_root(root: str | Path) -> Path:
    """The folder in which the files of ``root`` lie on this machine; a URI is copied there first.

    Raises:
        DatasetError: nothing lies at the URI, or it cannot be reached.
    """
    if "://" not in str(root):
        return Path(root).expanduser().resolve()
    uri = str(root)
    cache = Path(os.environ.get(CACHE) or "~/.cache/dhdiff-ray").expanduser()
    target = cache / "data" / hashlib.sha256(uri.encode()).hexdigest()[:16]
    if (target / WHOLE).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not (target / WHOLE).is_file():
            try:
                source, path = pafs.FileSystem.from_uri(uri)
                if source.get_file_info(path).type != pafs.FileType.Directory:
                    raise DatasetError(f"no dataset folder at {uri}; give the one that holds the categories")
                pafs.copy_files(path, str(target), source, pafs.LocalFileSystem())
            except OSError as error:
                raise DatasetError(f"the dataset {uri} cannot be copied to {target}: {error}") from None
            (target / WHOLE).write_text(uri + "\n")
    return target
