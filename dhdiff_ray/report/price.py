"""What a job will cost before it is sent: units, disk, hours at the pace that an earlier run was measured at.

Not in the paper. Decided: no pace is assumed. Where no run of the same network and size lies in the storage, hours are
not told, and how to measure them is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.filesize import decimal

from dhdiff_ray.config import Config
from dhdiff_ray.pairs.writer import pair_bytes
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder

PACKAGE = Path(__file__).resolve().parents[1]


def price(config: Config, defects: Mapping[str, int]) -> dict[str, Any]:
    """The price of a whole line over these categories.

    Args:
        config: of the job.
        defects: defects of each category that is asked for.

    Returns:
        ``categories``, ``training_steps``, ``pairs``, ``units``, ``pair_disk_bytes``, ``upload_bytes``, and, where a
        like run was measured, ``measured_in``, ``train_worker_hours`` and ``synthesize_worker_hours`` (hours of one
        worker; with GPUs, times ``gpus_per_worker`` of the verb, the GPU hours); else None.
    """
    s = config.synthesize
    pairs = sum(defects.values()) * s.pairs_per_defect
    steps = len(defects) * config.train.steps
    pace = measured(config)
    sent = (file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    train, draw = pace.get("seconds_per_step"), pace.get("seconds_per_pair")
    return {
        "categories": len(defects),
        "training_steps": steps,
        "pairs": pairs,
        "units": sum(defects.values()) * -(-s.pairs_per_defect // s.shard_size),
        "pair_disk_bytes": pairs * pair_bytes(config.data.resolution),
        "upload_bytes": sum(file.stat().st_size for file in sent),
        "measured_in": pace.get("run"),
        "train_worker_hours": None if train is None else round(train * steps * config.train.most_workers / 3600, 3),
        "synthesize_worker_hours": None if draw is None else round(draw * pairs / 3600, 3),
    }


def measured(config: Config) -> dict[str, Any]:
    """Seconds per training step and per pair of a run in the storage with the same network, size and hardware asked."""
    storage = RunFolder.at(config.run.storage)
    runs = sorted({name.split("/")[0] for name in storage.files() if name.count("/") == 1 and "events.jsonl" in name})
    for run in [config.run.name, *runs]:
        folder = storage.below(run)
        if not (folder.exists("config.json") and folder.exists("events.jsonl")):
            continue
        other = folder.readable("config.json")  # a damaged run beside this one is its own affair
        if other and _alike(config, other) and (pace := _pace(read_events(folder))):
            return {"run": run, **pace}
    return {}


def told(cost: Mapping[str, Any]) -> list[str]:
    """The price in a person's words."""
    lines = [
        f"{cost['categories']} categories, {cost['training_steps']} training steps in all",
        f"{cost['pairs']} pairs in {cost['units']} units, at most {decimal(int(cost['pair_disk_bytes']))}",
        f"upload: {cost['upload_bytes'] / 1e6:.1f} MB of code; no data is sent",
    ]
    hours = {"training": cost["train_worker_hours"], "making pairs": cost["synthesize_worker_hours"]}
    paced = [f"{name} {value:.2f} worker hours" for name, value in hours.items() if value is not None]
    if paced:
        return [*lines, ", ".join(paced) + f" at the pace of the run {cost['measured_in']}"]
    return [*lines, "hours: no run like this was measured; try one category with --set train.steps=50 -n 8 first"]


def _alike(config: Config, other: Mapping[str, Any]) -> bool:
    mine = config.model_dump(mode="json")
    same = (("data", "resolution"), ("train", "global_batch_size"), ("train", "gpus_per_worker"))
    same += (("synthesize", "steps"), ("train", "window"))
    return mine["model"] == other.get("model") and all(mine[a][b] == other.get(a, {}).get(b) for a, b in same)


def _pace(events: list[dict[str, Any]]) -> dict[str, float]:
    steps: list[float] = []
    pairs: list[float] = []
    last: dict[str, tuple[float, float]] = {}
    for event in events:
        if event.get("event") != "progress":
            continue
        if event.get("verb") == "train" and ", " not in event["category"]:  # a step, not a latent
            before = last.get(event["category"])
            if before and event["done"] > before[0]:
                steps.append((event["time"] - before[1]) / (event["done"] - before[0]))
            last[event["category"]] = (event["done"], event["time"])
        elif event.get("verb") == "synthesize" and event.get("made") and event.get("seconds"):
            pairs.append(event["seconds"] / event["made"])
    pace = {"seconds_per_step": median(steps)} if steps else {}
    return pace | ({"seconds_per_pair": median(pairs)} if pairs else {})
