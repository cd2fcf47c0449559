"""Datasets by name: one file, one class, one ``@dataset("name")``, and the loader is known everywhere.

Not in the paper. A loader comes from ``data/datasets/``, from the entry point group ``dhdiff_ray.datasets`` of an
installed package, or from a Python file given by its path, so that a private dataset needs no fork.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from dhdiff_ray.config import DataConfig
from dhdiff_ray.config.load import ConfigError, nearest
from dhdiff_ray.records import Sample

ENTRY_POINTS = "dhdiff_ray.datasets"


class DatasetError(ValueError):
    """A dataset that cannot be used as it lies there; the message names the path and the remedy."""


class UnknownNameError(DatasetError, ConfigError):
    """A dataset or category that there is not: usage, not data."""


class Remark(str):
    """A sentence about the data, with the path it is about."""

    path: str = ""

    @classmethod
    def on(cls, path: str | Path, text: str) -> Remark:
        """The sentence ``text`` about ``path``."""
        remark = cls(text)
        remark.path = str(path)
        return remark


class Reading(DataConfig):
    """How a user wants a dataset read, and who takes remarks."""

    tell: Callable[[str], None] = logging.getLogger(__name__).warning
    """Takes what a person should know of the data, one sentence at a time."""


@dataclass(frozen=True)
class Instance:
    """One annotated defect of an image, and how much of it must be found to count as all."""

    pixels: np.ndarray  # bool (h, w), at the image's own size
    saturation: float  # pixels of it that count as all of it


class Dataset(ABC):
    """How one published layout is read. A loader keeps nothing: every method is told the root."""

    name: ClassVar[str] = ""
    """Set by ``@dataset``; what ``--dataset`` takes."""
    reading: Reading = Reading()
    """What the user decided; ``open_dataset`` sets it."""
    licence: ClassVar[str]
    """Licence of the images, as their publisher states it."""
    source: ClassVar[str]
    """Where a person gets the images."""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use; models and pairs made from the images inherit the question."""
        words = self.licence.lower().replace("-", " ")
        return " nc" in f" {words}" or "non commercial" in words or "noncommercial" in words or "academic" in words

    def leave_out(self, problem: str, path: str | Path = "") -> None:
        """Something of the data cannot be used: stop, or with ``skip_bad`` tell it and go on.

        Args:
            problem: what is wrong and what was expected; names the file.
            path: the file.

        Raises:
            DatasetError: unless the user said to go on.
        """
        if not self.reading.skip_bad:
            raise DatasetError(f"{problem}; or leave such images out: --set data.skip_bad=true")
        self.reading.tell(Remark.on(path, f"left out: {problem}"))

    @abstractmethod
    def categories(self, root: Path) -> list[str]:
        """Sorted names of the categories below ``root``.

        Raises:
            DatasetError: there is no such folder, or nothing in it has the expected layout.
        """

    @abstractmethod
    def scan(self, root: Path, categories: Sequence[str] = ()) -> list[Sample]:
        """All images of ``categories`` (empty: of all), sorted by key; opens masks only where they name the defect.

        Raises:
            DatasetError: unknown category, an anomaly without mask, or a layout that does not fit.
        """

    def instances(self, root: Path, sample: Sample) -> list[Instance]:
        """The annotated defects of an anomaly where the data says how much of each counts as all; else none.

        Raises:
            DatasetError: what the data says of it cannot be read.
        """
        return []

    @abstractmethod
    def example(self, root: Path, seed: int = 0) -> None:
        """Write a tiny copy of the layout with drawn images, for tests and for trying the tool."""


_Loader = TypeVar("_Loader", bound=type[Dataset])
_registered: dict[str, type[Dataset]] = {}


def dataset(name: str) -> Callable[[_Loader], _Loader]:
    """Register a loader class under ``name`` and return the class.

    Raises:
        DatasetError: another class has this name.
    """

    def register(loader: _Loader) -> _Loader:
        taken = _registered.get(name)
        if taken is not None:
            raise DatasetError(
                f"dataset name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another"
            )
        loader.name = name
        _registered[name] = loader
        return loader

    return register


def dataset_names() -> list[str]:
    """Sorted names of all loaders that ship with the package or are installed beside it."""
    _discover()
    return sorted(_registered)


def open_dataset(name_or_file: str, reading: Reading | None = None) -> Dataset:
    """The loader of that name, or the one that the given Python file registers.

    Args:
        name_or_file: as ``--dataset`` takes it.
        reading: how to read; None reads with the defaults.

    Raises:
        DatasetError: no such name (the nearest one is named), or a file that registers not exactly one loader.
    """
    if name_or_file.endswith(".py"):
        loader = _from_file(Path(name_or_file).expanduser().resolve())
    elif name_or_file in (names := dataset_names()):
        loader = _registered[name_or_file]()
    else:
        raise UnknownNameError(
            f"no dataset {name_or_file!r}{nearest(name_or_file, names) or '.'} There are: {', '.join(names)}; "
            "a path to a Python file that registers one works too"
        )
    if reading is not None:
        loader.reading = reading
    return loader


def configured(data: DataConfig, tell: Callable[[str], None] | None = None) -> Dataset:
    """The loader of a run's configuration, reading as it says; ``tell`` takes its remarks."""
    values: dict[str, Any] = {**dict(data), **({"tell": tell} if tell else {})}
    return open_dataset(data.dataset, Reading(**values))


def choose_categories(there: Sequence[str], wanted: Sequence[str], root: Path) -> list[str]:
    """``wanted`` checked against what is ``there`` under ``root``; all of it when nothing is wanted.

    Raises:
        DatasetError: a wanted category is not there.
    """
    for name in wanted:
        if name not in there:
            hint = nearest(name, list(there)) or "."
            raise UnknownNameError(f"no category {name!r} in {root}{hint} There are: {', '.join(there)}")
    return [name for name in there if not wanted or name in wanted]


def _discover() -> None:
    from dhdiff_ray.data import datasets

    for module in pkgutil.iter_modules(datasets.__path__, datasets.__name__ + "."):
        importlib.import_module(module.name)
    for point in entry_points(group=ENTRY_POINTS):
        point.load()


def _from_file(path: Path) -> Dataset:
    if not path.is_file():
        raise UnknownNameError(
            f"no dataset file {path}; give the name of a loader or a path to an existing Python file"
        )
    module_name = "dhdiff_dataset_" + hashlib.sha256(str(path).encode()).hexdigest()[:12]
    if module_name not in sys.modules:
        _discover()  # so that a file that takes a shipped name is refused, whatever was imported before
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    loaders = [loader for loader in _registered.values() if loader.__module__ == module_name]
    if len(loaders) != 1:
        count = len(loaders)
        raise DatasetError(f'{path} registers {count} loaders; it needs exactly one class under @dataset("name")')
    return loaders[0]()
