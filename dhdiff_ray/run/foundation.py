"""A foundation: a model of ours over many products, started from by ``model.backbone`` (not in the paper).

Decided: what it learnt in belongs to it and is kept as it is: network, switches, words, autoencoder with its scaling,
noise schedule. What describes one product's surface, the texture of its noise and the last merge, is fitted to each.
Whether a model was adapted from it is known by its weights' hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.run.damage import FOUNDATION_AGAIN, DamagedError
from dhdiff_ray.run.folder import RunFolder

SHIPPED = "dhdiff-ray/"
"""Prefix of the names of models that come with the package."""
FACTS = "dhdiff.json"
INDEX = "model_index.json"
ADAPTERS = "adapters.safetensors"
"""In the folder of a model that is adapters over a foundation, in place of whole weights."""


@dataclass(frozen=True)
class Foundation:
    """A model to start from, on this machine."""

    name: str  # as ``model.backbone`` gives it
    folder: Path
    facts: dict[str, Any]

    @property
    def about(self) -> dict[str, str]:
        """What is recorded beside everything that was made from it."""
        return {"name": self.name, "weights_sha256": str(self.facts.get("weights_sha256", ""))}


def is_ours(config: Config) -> bool:
    """Whether ``model.backbone`` names a model of ours, not a Stable Diffusion."""
    name = config.model.backbone
    return bool(name) and _found(name, config.run.storage) is not None


def foundation_of(config: Config) -> Foundation | None:
    """The foundation that ``model.backbone`` names; None where it is empty or a Stable Diffusion.

    Raises:
        ValueError: a shipped name that is not there, or a model that is damaged.
    """
    return foundation_at(config.model.backbone, config.run.storage)


def foundation_at(name: str, storage: str) -> Foundation | None:
    """The foundation of that name, seen from a storage; None where it is empty or a Stable Diffusion.

    Raises:
        ValueError: a shipped name that is not there, or a model that is damaged.
    """
    found = _found(name, storage) if name else None
    if found is None:
        return None
    folder = found if isinstance(found, Path) else found[0].local(found[1])
    try:
        facts = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is no finished model: its {FACTS} cannot be read ({error}); train it again") from None
    now, then = weights_hash(folder), facts.get("weights_sha256", "")
    if now != then:
        raise ValueError(
            f"the weights of {name} are not those that were published (sha256 {now[:12]}, expected {then[:12]}): the "
            "files are damaged or were changed; copy or train it again"
        )
    return Foundation(name, folder, facts)


def foundation_under(facts: Mapping[str, Any], config: Config) -> Foundation:
    """The foundation that a model's adapters lie over: where ``model.backbone`` says, or else by the name it had.

    Args:
        facts: what was written beside the model.
        config: of the run it lies in.

    Raises:
        DamagedError: it is not there, or is not the one; the message names it, and what to type.
    """
    told = facts["foundation"]
    name, then = config.model.backbone or told["name"], told["weights_sha256"]
    try:
        found = foundation_at(name, config.run.storage)
        now = found.about["weights_sha256"] if found else ""
        problem = "" if now == then else f"the weights of {name} are {now[:12]}" if found else f"there is no {name}"
    except ValueError as error:
        found, problem = None, str(error)
    if found is None or problem:
        raise DamagedError(
            f"the model of {facts['category']!r} is adapters over the foundation {told['name']} with weights "
            f"{then[:12]}, and {problem}; {FOUNDATION_AGAIN}"
        )
    return found


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    folder = _shelf()
    return sorted(SHIPPED + f.name for f in folder.iterdir() if (f / INDEX).is_file()) if folder.is_dir() else []


def weights_hash(folder: Path) -> str:
    """One hash of all weights of a model's folder: of the hashes of its files, by name."""
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(hashlib.sha256(f.read_bytes()).digest() for f in files)).hexdigest()


def _shelf() -> Path:
    return Path(str(resources.files("dhdiff_ray"))) / "foundations"


def _found(name: str, storage: str) -> Path | tuple[RunFolder, str] | None:
    """Where it is stored: a local folder, or a run and a path in it; None if it is no foundation."""
    if name.startswith(SHIPPED):
        folder = _shelf() / name.removeprefix(SHIPPED)
        if not (folder / INDEX).is_file():
            raise ValueError(f"no model {name!r} comes with this package; there are: {', '.join(shipped()) or 'none'}")
        return folder
    local = Path(name).expanduser()
    if (local / INDEX).is_file():
        return local if _is_our_class((local / INDEX).read_text()) else None
    if (local / ADAPTERS).is_file():
        raise _no_start(name)
    if "://" in name:
        place, path = RunFolder.at(name), ""
    else:
        run, _, model = name.rpartition("/")
        if not run or "/" in run:
            return None
        place, path = RunFolder.of(storage, run), f"models/{model}"
    index = f"{path}/{INDEX}".lstrip("/")
    if not place.exists(index):
        if place.exists(f"{path}/{ADAPTERS}".lstrip("/")):
            raise _no_start(name)
        return None
    return (place, path) if _is_our_class(place.read_bytes(index).decode()) else None


def _no_start(name: str) -> ValueError:
    return ValueError(
        f"{name} is adapters over a foundation and no whole model: start from the foundation that its {FACTS} names, "
        "or from a model trained with --set train.adapt=full"
    )


def _is_our_class(index: str) -> bool:
    try:
        name = json.loads(index).get("_class_name", "")
    except ValueError as error:
        raise ValueError(f"the {INDEX} of model.backbone cannot be read ({error}); copy or train it again") from None
    return (name[-1] if isinstance(name, list) else name) == "DHDiffPipeline"
