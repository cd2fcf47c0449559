"""A training's checkpoints: written by every worker, loaded by as many as there are now (section IV-B).

Not in the paper. Decided: what ZeRO has sharded for another number of workers is made a DeepSpeed universal checkpoint
first, once per node and in its temporary folder, so that the run keeps what was written; at stage 0 every worker has
everything and any number of them loads it as it is. The averaged weights belong to rank 0 and are never sharded. Each
rank writes a manifest of its files; a checkpoint that is not as they say, or whose manifests are not all there, is
passed over for the one before. One without any is older than manifests: it is loaded as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import torch
from filelock import FileLock
from torch import distributed as dist

from dhdiff_ray.run.damage import promises_below
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.training.checkpoint import MANIFEST, MARKER, broken_checkpoint

TAG = "engine"
UNIVERSAL = "universal"
AVERAGE = "average.pt"


@dataclass(frozen=True)
class Stored:
    """A checkpoint that is ready to be loaded."""

    folder: Path
    """As it was written."""
    engine: Path
    """Folder that holds the engine's part, below ``tag``."""
    tag: str

    @property
    def is_universal(self) -> bool:
        """Whether the engine must be made to load a universal checkpoint."""
        return self.tag == UNIVERSAL


def save(engine: Any, average: Any, done: int, log: dict[str, float], rank: int, world_size: int) -> None:
    """Report a checkpoint: every rank its part, rank 0 the averaged weights."""
    folder = Path(tempfile.mkdtemp(prefix="dhdiff-"))
    write(folder, engine, average, done, rank, world_size)
    (folder / MANIFEST.format(rank=rank)).write_text(json.dumps(promises_below(folder)))
    ray.train.report(
        {"done": done, **log},
        checkpoint=ray.train.Checkpoint.from_directory(folder),
        checkpoint_dir_name=f"step_{done:07d}",
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
    )


def write(folder: Path, engine: Any, average: Any, done: int, rank: int, world_size: int) -> None:
    """Write this rank's part of a checkpoint; called by every rank."""
    engine.save_checkpoint(str(folder), tag=TAG, client_state={"done": done})
    if rank == 0:
        (folder / MARKER).write_text(json.dumps({"done": done, "world_size": world_size}))
        if average is not None:
            torch.save(average.state_dict(), folder / AVERAGE)


@contextlib.contextmanager
def last_checkpoint(
    folder: RunFolder, zero_stage: int, world_size: int, rank: int, warn: Callable[[str], object]
) -> Iterator[Stored | None]:
    """The last whole checkpoint below ``folder``, if there is one, as so many workers can load it; for all ranks."""
    latest = ray.train.get_checkpoint()
    known = "" if latest is None else Path(latest.path).name
    name = newest_whole(folder, known, warn) if rank == 0 else ""
    if world_size > 1:  # all of them must go on from the same one
        name = ray.train.collective.broadcast_from_rank_zero(name)
    if not name:
        yield None
        return
    checkpoint = latest if latest is not None and name == known else checkpoint_of(folder, name)
    with checkpoint.as_directory() as place, loadable(Path(place), zero_stage, world_size) as stored:
        yield stored


def newest_whole(folder: RunFolder, latest: str, warn: Callable[[str], object]) -> str:
    """Name of the newest checkpoint that is whole; empty where there is none.

    Args:
        folder: with the category's checkpoints.
        latest: the one that Ray Train would go on from; newer ones were never complete. Where it knows of none only
            those count whose manifests say that they are whole.
        warn: takes what is passed over.
    """
    there = sorted({file.split("/")[0] for file in folder.files() if file.startswith("step_")}, reverse=True)
    for name in [latest, *(name for name in there if name < latest)] if latest else there:
        try:
            with checkpoint_of(folder, name).as_directory() as place:
                problem = broken_checkpoint(Path(place), may_be_old=name == latest)
        except OSError as error:
            problem = str(error)
        if not problem:
            return name
        if latest:
            warn(f"the checkpoint {name} in {folder.uri} is damaged: {problem}; it is passed over for one before it")
    if latest:
        warn(f"no whole checkpoint is left in {folder.uri}; training begins anew")
    return ""


def checkpoint_of(folder: RunFolder, name: str) -> ray.train.Checkpoint:
    """A checkpoint by its name below a folder."""
    return ray.train.Checkpoint(folder.path(name), folder.filesystem)


@contextlib.contextmanager
def loadable(folder: Path, zero_stage: int, world_size: int) -> Iterator[Stored]:
    """A checkpoint as so many workers can load it; what was converted is removed when all ranks are done with it."""
    written_by = json.loads((folder / MARKER).read_text())["world_size"]
    if zero_stage == 0 or written_by == world_size:
        yield Stored(folder, folder, TAG)
        converted = None
    else:
        converted = universal(folder)
        yield Stored(folder, converted, UNIVERSAL)
    if dist.is_initialized():
        dist.barrier()  # a fast rank must not remove what a slow one on its node still reads
    if converted is not None:
        shutil.rmtree(converted, ignore_errors=True)


def universal(folder: Path) -> Path:
    """Make a checkpoint one that any number of workers can load; the first process of a node does it for all.

    Args:
        folder: the checkpoint as it was written.

    Returns:
        A folder of this node's with the checkpoint below ``UNIVERSAL``.

    Raises:
        RuntimeError: it could not be converted.
    """
    written = f"{folder.resolve()} {(folder / MARKER).stat().st_mtime_ns}"
    place = Path(tempfile.gettempdir()) / f"dhdiff-universal-{hashlib.sha256(written.encode()).hexdigest()[:16]}"
    with FileLock(f"{place}.lock"):
        if place.exists():
            return place
        with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
            target = Path(temporary) / "checkpoint"
            words = ["--input_folder", str(folder / TAG), "--output_folder", str(target / UNIVERSAL)]
            words += ["--num_extract_workers", "1", "--num_merge_workers", "1", "--inject_missing_state"]
            command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *words]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(
                    f"the checkpoint {folder} could not be made one for another number of workers; set train.workers "
                    f"to {json.loads((folder / MARKER).read_text())['world_size']}, which wrote it. DeepSpeed said: "
                    + done.stderr.strip()[-2000:]
                )
            target.rename(place)
    return place


def restore(engine: Any, average: Any, stored: Stored | None) -> int:
    """Go on from a checkpoint, if there is one; returns the steps done.

    Raises:
        RuntimeError: DeepSpeed found nothing in it, or it is of another network.
    """
    if stored is None:
        return 0
    if average is not None:
        held = torch.load(stored.folder / AVERAGE, weights_only=True)
        if [w.shape for w in held["shadow_params"]] != [w.shape for w in engine.module.trained_parameters()]:
            raise RuntimeError(
                f"the checkpoint {stored.folder.name} is of another network than this one: it was written under other "
                "model settings or by an earlier version; remove the run's checkpoints, or train under another --run"
            )
        average.load_state_dict(held)
    path, state = engine.load_checkpoint(str(stored.engine), tag=stored.tag)
    if path is None:
        raise RuntimeError(
            f"DeepSpeed found no checkpoint in {stored.folder}; remove the run's checkpoints and train anew"
        )
    return state["done"]
