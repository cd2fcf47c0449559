"""Damaged files of a run: how they are noticed, and what to type then.

Not in the paper. Decided: what a run cannot make again for itself is named, file and remedy in one line; what it can,
it makes again. What was written before files had hashes is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

Promise = Sequence[int | str]
"""Size and SHA-256 of a file, as a marker holds them."""

PAIRS_AGAIN = "type the line with `submit synthesize` (or `submit all`) again: it makes what is missing"
FOUNDATION_AGAIN = (
    "put the foundation back, say where it is with --set model.backbone=PLACE, or train its products in a new --run"
)
REMEDIES = (
    (r"config\.json", "use the version of dhdiff-ray that wrote it, put it back from a copy, or remove it and type the "
     "line that began the run again, without --resume: what is trained and made stays"),
    (r"split\.json", "put it back from a copy, or remove it and go on with: dhdiff-ray submit train --resume; the same "
     "images and seed give the same split"),
    (r"models/([^/]+)/.*", r"remove models/\1 and go on from its last checkpoint: dhdiff-ray submit train --resume"),
    (r"synthesis/([^/]+)\.json", r"put it back from a copy, or remove it and ask for the pairs of \1 as before"),
    (r"(pairs|synthesis)/.*", PAIRS_AGAIN),
    (r"scores.*", "remove it and type: dhdiff-ray submit score"),
    (r"detect.*", "remove it and type: dhdiff-ray submit detect"),
    (r"(table\.json|cells/.*)", "remove it and type the table's line again with --resume"),
    (r"cache/.*", "remove it: the next training computes it again"),
    (r"served/.*", "remove the folder served; it is only shown on the page"),
)  # fmt: skip
"""What to do about a file, by its name in the run; the first that fits counts."""


class DamagedError(ValueError):
    """A file of a run that cannot be used; the message names it, and what to type."""

    @classmethod
    def of(cls, folder: str, name: str, problem: object) -> DamagedError:
        """The error about the file ``name`` of the run at ``folder``."""
        words = f"{type(problem).__name__}: {problem}" if isinstance(problem, KeyError) else str(problem)
        return cls(f"{folder}/{name} is damaged ({words}); {remedy_of(name)}")


def remedy_of(name: str) -> str:
    """What to do about a file that is damaged."""
    for pattern, words in REMEDIES:
        if found := re.fullmatch(pattern, name):
            return found.expand(words)
    return "put it back from a copy, or remove it and type the same line again"


def promise(data: bytes) -> list[int | str]:
    """The entry of a file with this content in a marker: size and SHA-256."""
    return [len(data), hashlib.sha256(data).hexdigest()]


def promise_of(values: Mapping[str, object]) -> list[int | str]:
    """The same of plain values, as they are inside a marker that tells of itself."""
    return promise(json.dumps(values, sort_keys=True).encode())


def promises_below(folder: Path) -> dict[str, list[int | str]]:
    """The entries of all files below a local folder, by their paths in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): [file.stat().st_size, sha256_of(file)] for file in files}


def first_broken(folder: Path, promises: Mapping[str, Promise]) -> str:
    """The first file below a local folder that differs from its entry, and how; empty if none does."""
    for name, (size, digest) in sorted(promises.items()):
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, not {size}"
        if sha256_of(file) != digest:
            return f"{name} has another content than was written"
    return ""


def sha256_of(file: Path) -> str:
    """SHA-256 of a file that may be too large for the memory."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
