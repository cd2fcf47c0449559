"""Is everything in a run as it was written: every file that can be checked, without a cluster.

Not in the paper. Decided: what a verb would mend or refuse when it comes to it is looked for at once; a pair that is
damaged is named with its file, a whole category with what to type.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dhdiff_ray.config import SynthesizeConfig
from dhdiff_ray.pairs.archives import MANIFEST
from dhdiff_ray.pairs.intact import damaged_files, damaged_normals
from dhdiff_ray.pairs.writer import (
    PAIRS,
    SETTINGS,
    TOLD_IN,
    files_of,
    finished_categories,
    finished_file,
    layout_of,
    read_pair_rows,
    settings_file,
)
from dhdiff_ray.run.damage import FOUNDATION_AGAIN, DamagedError, promise, remedy_of
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.foundation import ADAPTERS, foundation_under
from dhdiff_ray.run.run import CONFIG, FOUNDATION, SPLIT, Run
from dhdiff_ray.training.checkpoint import MARKER, broken_checkpoint, check_model, is_trained, model_facts

MISSING = "it is missing"
MODELS, CHECKPOINTS, DETECTORS = "models", "checkpoints", "detectors"


@dataclass(frozen=True)
class Fault:
    """One file that is not as it was written."""

    path: str
    """Its name in the run."""
    problem: str
    remedy: str

    @property
    def category(self) -> str:
        """Whose pairs are concerned; empty where it is none's."""
        parts = self.path.split("/")
        return parts[1] if parts[0] in (PAIRS, SETTINGS) and len(parts) > 2 else ""


def faults_of(folder: RunFolder) -> list[Fault]:
    """Every fault that can be found, by file."""
    found: dict[str, str] = {}
    for name in folder.files():
        if name.endswith(".json") and not name.startswith(CHECKPOINTS):
            _try(found, name, partial(folder.read_json, name))
    if not folder.exists(CONFIG):
        found[CONFIG] = MISSING
    elif CONFIG not in found:
        _try(found, CONFIG, lambda: Run.stored(folder))
    config = None if CONFIG in found else Run.stored(folder).config
    if config and not config.sources and not config.ablation.rows:  # a foundation has several splits, a table none
        if not folder.exists(SPLIT):
            found[SPLIT] = MISSING
        elif SPLIT not in found:
            _try(found, SPLIT, lambda: Run.stored(folder).split)
    under = _foundation(folder) if not found.keys() & {CONFIG, FOUNDATION} else []
    found |= dict(_models(folder)) | dict(_checkpoints(folder)) | dict(_detectors(folder))
    for category in sorted({name.split("/")[1] for name in folder.files(PAIRS) if name.count("/") > 1}):
        found |= damaged_files(folder, category, read=True)
        found |= dict.fromkeys(damaged_normals(folder, category, read=True), "another content than was written")
        found |= dict(_settings(folder, category))
    for category in finished_categories(folder):
        found |= dict(_rows(folder, category))
    faults = [*under, *(Fault(name, problem, remedy_of(name)) for name, problem in found.items())]
    return sorted(faults, key=lambda fault: fault.path)


def repairable(run: Run, category: str) -> tuple[Run, str]:
    """The run, asked for the pairs of a category as they were made, and its digest as their rows tell it."""
    digest = ""
    stored = run.folder.facts(f"{SETTINGS}/{category}.json")
    known = {name: value for name, value in stored.items() if name in SynthesizeConfig.model_fields}
    with contextlib.suppress(ValueError, KeyError):  # else as many as the run's configuration says
        known["pairs_per_defect"], digest = _made_before(run.folder, category)
    synthesize = SynthesizeConfig.model_validate({**run.config.synthesize.model_dump(), **known})
    return Run(run.config.model_copy(update={"synthesize": synthesize}), run.folder), digest


def _made_before(folder: RunFolder, category: str) -> tuple[int, str]:
    """The most pairs of a defect, and the configuration's digest, as a finished category tells them."""
    if layout_of(folder, category) == "webdataset":
        manifest = folder.read_json(f"{PAIRS}/{category}/{MANIFEST}")
        ends = [int(name.rsplit("/", 1)[1]) + told["pairs"] for name, told in manifest["archives"].items()]
        return max(ends), manifest["config_digest"]
    rows = read_pair_rows(folder, category)
    return 1 + max(row["index"] for row in rows), str(rows[0].get("config_digest", ""))


def _try(found: dict[str, str], name: str, read: Callable[[], object]) -> None:
    try:
        read()
    except DamagedError as error:
        found[name] = _words(error)
    except OSError as error:  # a folder in a file's place, or one that may not be read
        found[name] = str(error)


def _words(error: DamagedError) -> str:
    """What is wrong, without the file's name before it and the remedy behind it."""
    return str(error).split(" is damaged (", 1)[-1].rsplit("); ", 1)[0]


def _models(folder: RunFolder) -> Iterator[tuple[str, str]]:
    for category in sorted({name.split("/")[1] for name in folder.files(MODELS) if name.count("/") > 1}):
        name, unread = f"{MODELS}/{category}/{MARKER}", dict[str, str]()
        if folder.exists(name):
            _try(unread, name, partial(model_facts, folder, category))
            yield from unread.items()
        try:
            with folder.fetched(f"{MODELS}/{category}") as model:
                check_model(model)
        except DamagedError as error:
            yield name, str(error).split(" is damaged: ")[-1].rsplit("; remove", 1)[0]


def _foundation(folder: RunFolder) -> list[Fault]:
    """What is wrong with the foundation that models of the run are adapters over."""
    config, seen = Run.stored(folder).config, set[str]()
    for category in folder.folders(MODELS):
        if not is_trained(folder, category) or not folder.exists(f"{MODELS}/{category}/{ADAPTERS}"):
            continue
        try:
            facts = model_facts(folder, category)
        except DamagedError:
            continue  # told of the model itself
        if (weights := str(facts["foundation"])) in seen:
            continue
        seen.add(weights)
        try:
            foundation_under(facts, config)
        except DamagedError as error:
            return [Fault(FOUNDATION, str(error).removesuffix(f"; {FOUNDATION_AGAIN}"), FOUNDATION_AGAIN)]
    return []


def _checkpoints(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Checkpoints of an object store are looked at by who loads them: here they would all be fetched."""
    if not folder.is_local:
        return
    for place in sorted(Path(folder.path(CHECKPOINTS)).glob("*/step_*")):
        if problem := broken_checkpoint(place):
            yield place.relative_to(folder.path()).as_posix(), problem


def _detectors(folder: RunFolder) -> Iterator[tuple[str, str]]:
    for name in folder.files(DETECTORS):
        told = folder.facts(name.replace(".safetensors", ".json")) if name.endswith(".safetensors") else {}
        if "weights" in told and promise(folder.read_bytes(name)) != told["weights"]:
            yield name, "another content than was written"


def _settings(folder: RunFolder, category: str) -> Iterator[tuple[str, str]]:
    """What a finished category's marker tells of and that is gone or changed: its settings, and that it has rows."""
    told, name = folder.facts(finished_file(category)), settings_file(category)
    for file in TOLD_IN.values():
        if file in told and not folder.exists(f"{PAIRS}/{category}/{file}"):
            yield f"{PAIRS}/{category}/{file}", MISSING
    if SETTINGS in told and not folder.exists(name):
        yield name, MISSING
    elif SETTINGS in told and promise(folder.read_bytes(name)) != told[SETTINGS]:
        yield name, "another content than was written"


def _rows(folder: RunFolder, category: str) -> Iterator[tuple[str, str]]:
    """Rows that cannot be read, and files that they name and that are gone."""
    try:
        rows = read_pair_rows(folder, category)
    except DamagedError as error:
        yield str(error).split(" is damaged (", 1)[0].removeprefix(f"{folder.uri}/"), _words(error)
        return
    except OSError as error:  # a folder in a file's place, or one that may not be read
        yield f"{PAIRS}/{category}/{TOLD_IN[layout_of(folder, category)]}", str(error)
        return
    there = folder.sizes(f"{PAIRS}/{category}")
    for name in dict.fromkeys(name for row in rows for name in files_of(row)):
        if name not in there:
            yield name, MISSING
