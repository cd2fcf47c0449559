"""What a job will cost before it is sent, and what it has cost: units, files, disk, hours, money.

Not in the paper. Decided: no pace is assumed. Where no run of the same network, size and sampling lies in the storage,
hours are not told, and how to measure them is. A job writes down what it was planned at when it starts, so that the
report can tell that beside what was spent; both count hours of workers, which a busy machine does not make fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.filesize import decimal

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.archives import BESIDE, pairs_per_archive
from dhdiff_ray.pairs.writer import pair_bytes
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

PACKAGE = Path(__file__).resolve().parents[1]
PLAN = "plan"
"""The event that tells what a job was planned at."""
ALIKE = (
    ("data", "resolution"),
    *(("train", name) for name in ("global_batch_size", "gpus_per_worker", "window", "adapt", "precision")),
    *(("synthesize", name) for name in ("steps", "start", "strength", "guidance", "precision", "gpus_per_worker")),
)
"""Knobs that a run whose pace counts has in common with the job, beside the whole network's."""


def price(config: Config, defects: Mapping[str, int], hourly: float | None = None) -> dict[str, Any]:
    """The price of a whole line over these categories.

    Args:
        config: of the job.
        defects: defects of each category that is asked for.
        hourly: money for an hour of a GPU, or of a core where no worker asks for a GPU; None tells no money.

    Returns:
        ``categories``, ``training_steps``, ``pairs``, ``units`` (of work), ``pair_objects`` (files of pairs and units),
        ``pair_disk_bytes``, ``upload_bytes``, and, where a like run was measured, ``measured_in``,
        ``train_worker_hours`` and ``synthesize_worker_hours`` (hours of one worker), ``gpu_hours`` and ``cpu_hours`` of
        both together, and ``money``; else None.
    """
    s = config.synthesize
    pairs = sum(defects.values()) * s.pairs_per_defect
    units, objects, disk = laid_down(config, sum(defects.values()))
    steps = len(defects) * config.train.steps
    pace = measured(config)
    sent = (file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    train, draw = pace.get("seconds_per_step"), pace.get("seconds_per_pair")
    hours = {
        "train_worker_hours": None if train is None else round(train * steps * config.train.most_workers / 3600, 3),
        "synthesize_worker_hours": None if draw is None else round(draw * pairs / 3600, 3),
    }
    cost = {
        "categories": len(defects),
        "training_steps": steps,
        "pairs": pairs,
        "units": units,
        "pair_objects": objects,
        "pair_disk_bytes": disk,
        "upload_bytes": sum(file.stat().st_size for file in sent),
        "measured_in": pace.get("run"),
        **hours,
        **device_hours(config, hours),
    }
    paid = cost["gpu_hours"] if _asks_for_gpus(config) else cost["cpu_hours"]
    return cost | {"money": None if hourly is None or paid is None else round(hourly * paid, 2)}


def laid_down(config: Config, defects: int) -> tuple[int, int, int]:
    """Units of work of so many defects' pairs, their files, and bytes at most, in the configuration's layout.

    Raises:
        ValueError: not even one batch fits into an archive.
    """
    s, size = config.synthesize, pair_bytes(config.data.resolution)
    pairs = defects * s.pairs_per_defect
    if s.layout == "webdataset":  # a tar, its rows and its marker
        units = defects * -(-s.pairs_per_defect // pairs_per_archive(size, s.shard_size))
        return units, 3 * units, pairs * (size + BESIDE)
    units = defects * -(-s.pairs_per_defect // s.shard_size)
    return units, 2 * pairs + units, pairs * size


def plan_of(run: Run) -> dict[str, Any]:
    """The price of all categories of a run that is laid out, for its events."""
    defects = Counter(category for category, _ in run.split.defects() if category in run.categories)
    return price(run.config, dict.fromkeys(run.categories, 0) | defects)


def device_hours(config: Config, hours: Mapping[str, Any]) -> dict[str, float | None]:
    """GPU and core hours of worker hours as :func:`price` has them; None where those of a verb are not known."""
    verbs = ((hours["train_worker_hours"], config.train), (hours["synthesize_worker_hours"], config.synthesize))
    known = [(value, asked) for value, asked in verbs if value is not None]
    if len(known) < len(verbs):
        return {"gpu_hours": None, "cpu_hours": None}
    return {
        "gpu_hours": round(sum(value * asked.gpus_per_worker for value, asked in known), 3),
        "cpu_hours": round(sum(value * asked.cpus_per_worker for value, asked in known), 3),
    }


def measured(config: Config) -> dict[str, Any]:
    """Seconds per training step and per pair of a run in the storage that is like this one."""
    storage = RunFolder.at(config.run.storage)
    for run in dict.fromkeys([config.run.name, *storage.folders()]):
        folder = storage.below(run)
        if not folder.exists("config.json"):
            continue
        other = folder.facts("config.json")  # a damaged run beside this one is its own affair
        if other and _alike(config, other) and (pace := _pace(read_events(folder))):
            return {"run": run, **pace}
    return {}


def spent(config: Config, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's events tell of its cost so far, named as by :func:`price`; without what its workers waited."""
    events = list(events)
    train = sum(seconds for seconds, _ in _training(events)) * config.train.most_workers
    made = list(_making(events))
    hours = {
        "train_worker_hours": round(train / 3600, 3),
        "synthesize_worker_hours": round(sum(seconds for seconds, _ in made) / 3600, 3),
    }
    return {**hours, "pairs": sum(count for _, count in made), **device_hours(config, hours)}


def planned(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the run's jobs were planned at: the first plan of as many pairs as the last one; empty without any."""
    plans = [event for event in events if event.get("event") == PLAN]
    return next((dict(plan) for plan in plans if plan.get("pairs") == plans[-1].get("pairs")), {})


def told(cost: Mapping[str, Any]) -> list[str]:
    """The price in a person's words."""
    lines = [
        f"{cost['categories']} categories, {cost['training_steps']} training steps in all",
        f"{cost['pairs']} pairs in {cost['units']} units, at most {decimal(int(cost['pair_disk_bytes']))} in "
        f"{cost['pair_objects']} files",
        f"upload: {cost['upload_bytes'] / 1e6:.1f} MB of code; no data is sent",
    ]
    hours = {"training": cost["train_worker_hours"], "making pairs": cost["synthesize_worker_hours"]}
    paced = [f"{name} {value:.2f} worker hours" for name, value in hours.items() if value is not None]
    if not paced:
        return [*lines, "hours: no run like this was measured; try one category with --set train.steps=50 -n 8 first"]
    lines.append(", ".join(paced) + f" at the pace of the run {cost['measured_in']}")
    if cost["gpu_hours"] is not None:
        paid = "" if cost["money"] is None else f": {cost['money']:.2f} at the price given"
        lines.append(f"{cost['gpu_hours']:.2f} GPU hours, {cost['cpu_hours']:.2f} core hours{paid}")
    return lines


def _asks_for_gpus(config: Config) -> bool:
    return bool(config.train.gpus_per_worker or config.synthesize.gpus_per_worker)


def _alike(config: Config, other: Mapping[str, Any]) -> bool:
    mine = config.model_dump(mode="json")
    return mine["model"] == other.get("model") and all(mine[a][b] == (other.get(a) or {}).get(b) for a, b in ALIKE)


def _pace(events: list[dict[str, Any]]) -> dict[str, float]:
    steps = [seconds / count for seconds, count in _training(events)]
    pairs = [seconds / count for seconds, count in _making(events)]
    pace = {"seconds_per_step": median(steps)} if steps else {}
    return pace | ({"seconds_per_pair": median(pairs)} if pairs else {})


def _training(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    """Seconds and steps between two events of a training that went on."""
    last: dict[str, tuple[float, float]] = {}
    for event in events:
        if event.get("event") == "start" and event.get("verb") == "train":
            last.pop(event.get("category", ""), None)  # between two jobs nobody trained
        if event.get("event") != "progress" or event.get("verb") != "train" or ", " in event["category"]:
            continue  # with a comma: latents, no steps
        before = last.get(event["category"])
        if before and event["done"] > before[0]:
            yield event["time"] - before[1], event["done"] - before[0]
        last[event["category"]] = (event["done"], event["time"])


def _making(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[float, int]]:
    """Seconds of a sampler and pairs of each unit that was made."""
    for event in events:
        is_unit = event.get("event") == "progress" and event.get("verb") == "synthesize"
        if is_unit and event.get("made") and event.get("seconds"):
            yield event["seconds"], event["made"]
