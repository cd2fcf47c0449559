"""Train one model per category, side by side (section IV-B), or one of all sources: a foundation.

A queue of driver tasks, each a TorchTrainer whose workers are DeepSpeed engines. Decided: not Tune; a category that
fails does not stop the others; a rerun under the same name resumes each category from its last checkpoint and skips
those that are done. With a range of workers a category shrinks when a node is lost and grows when there is room again;
categories go side by side as if each were at its largest.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.events import Events, Hub
from dhdiff_ray.on_ray.pool import beside_driver, room
from dhdiff_ray.report.price import PLAN, plan_of
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import SPLIT, Run
from dhdiff_ray.run.sources import lay_out_sources
from dhdiff_ray.training.checkpoint import is_trained
from dhdiff_ray.training.trackers import refuse_missing

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's list of a category's checkpoints."""
LEAST_HEALTH_SECONDS = 60.0
"""A worker that writes a checkpoint answers Ray Train that late."""
ELASTIC_START_SECONDS = "10"
"""How long Ray Train waits for the room it believes there is: after a node's loss it believes in the old one first."""


def main(config: Config, resume: bool = False) -> int:
    """Split the images, train every category, publish each; 0, or 1 if a category failed."""
    run = Run(config)
    if not resume:
        run.refuse_existing()
    with Events(run.folder, "train") as events, lease(run.folder):
        categories = lay_out(run, events)
        if not config.sources:
            events.emit(PLAN, **plan_of(run))
        waiting = [category for category in categories if not is_trained(run.folder, category)]
        for category in categories:
            steps = config.train.steps
            events.emit("start", category=category, done=0 if category in waiting else steps, total=steps)
        with events.hub(every=0.5) as hub:
            failed = train_many(run, waiting, hub, events)
    return 1 if failed else 0


def lay_out(run: Run, events: Events) -> list[str]:
    """Write the run's split, or check the one that is there, and its configuration; returns the categories.

    Raises:
        ValueError: the split there is another one, or a tracker that is asked for is not installed.
    """
    config = run.config
    refuse_missing(config.train.trackers)
    if config.sources:
        return lay_out_sources(run, events.emit)
    samples = run.scan(events.emit)
    if run.folder.exists(SPLIT):
        run.split.check_settings(config.data, config.run.seed)
        run.split.check(config.data.root)
    run.begin(samples)
    return run.categories


def stage(run: Run, events: Events, category: str) -> int:
    """Train one category of a run that is laid out, unless it is trained; 0."""
    steps, done = run.config.train.steps, is_trained(run.folder, category)
    events.emit("start", category=category, done=steps if done else 0, total=steps)
    if not done:
        with events.hub() as hub:
            train_category(run, category, hub)
    return 0


def train_many(
    run: Run, categories: list[str], hub: Hub, events: Events, one: Callable[..., None] | None = None
) -> list[str]:
    """Train categories with as many at a time as the cluster has room for; returns those that failed.

    ``one`` is what trains a category; None takes :func:`train_category`.
    """
    task, steps = ray.remote(num_cpus=0, max_retries=2)(one or train_category), run.config.train.steps
    queue, live, failed = deque(categories), {}, []
    while queue or live:
        while queue and len(live) < slots(run.config):
            category = queue.popleft()
            named = task.options(name=f"train:{category}", **place_of(run.config))
            live[named.remote(run, category, hub)] = category
        done, _ = ray.wait(list(live), timeout=2)
        for reference in done:
            category = live.pop(reference)
            try:
                ray.get(reference)
                events.emit("done", category=category, done=steps, total=steps)
            except RayError as error:
                failed.append(category)
                meters.failed("train", category)
                events.emit("failed", category=category, message=str(error).strip().splitlines()[-1], trace=str(error))
    return failed


def place_of(config: Config) -> dict[str, Any]:
    """Where a category's task belongs: if it is elastic, on the driver's node.

    Ray Train's controller lies on its task's node, and so does, for ever, the actor that counts nodes for all elastic
    runs: on a node that is lost it would come back nowhere. Other tasks go where Ray likes, so that hundreds do not
    crowd one node.
    """
    if not config.train.is_elastic:
        return {}
    return {"scheduling_strategy": beside_driver()}


def slots(config: Config) -> int:
    """Categories that fit at once; at least one, so that Ray reports what is missing."""
    t = config.train
    return room(t.most_workers * t.cpus_per_worker, t.most_workers * t.gpus_per_worker)


def train_category(run: Run, category: str, hub: Hub) -> None:
    """One category: a Ray Train run whose name and place make it resume by itself."""
    # Imported here: the job's driver needs none of it, and torch costs seconds and hundreds of megabytes.
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if len(ray.nodes()) == 1:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process per category for what cannot be
    t, place = run.config.train, run.folder.below("checkpoints")
    if lost := forget_what_is_lost(place.below(category)):
        about = {"verb": "train", "category": category, "event": "warning", "time": round(time.time(), 3)}
        hub.emit.remote({**about, "message": f"{category}: {lost}"})
    if run.config.sources:
        from dhdiff_ray.on_ray.verbs.feed import write

        write(run, hub)
    if t.step_seconds:  # of a worker that is stopped as a whole; Ray Train's own limit is ten minutes
        os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(max(t.step_seconds, LEAST_HEALTH_SECONDS))
    if t.is_elastic:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = ELASTIC_START_SECONDS
    resources = {"CPU": float(t.cpus_per_worker)} | ({"GPU": t.gpus_per_worker} if t.gpus_per_worker else {})
    TorchTrainer(
        work,
        train_loop_config={"run": run, "category": category, "hub": hub},
        scaling_config=ScalingConfig(
            num_workers=t.workers,
            use_gpu=t.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=t.resize_seconds,
        ),
        run_config=RunConfig(
            name=category,
            storage_path=place.uri,
            failure_config=FailureConfig(max_failures=t.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=t.keep_checkpoints),
        ),
    ).fit()


def forget_what_is_lost(checkpoints: RunFolder) -> str:
    """Remove Ray Train's list of checkpoints if it is damaged or names one that is gone, with a warning.

    Ray would fail with it. Without it the workers look for themselves which checkpoint is whole.
    """
    if not checkpoints.exists(SNAPSHOT):
        return ""
    content = checkpoints.readable(SNAPSHOT)
    names = set(re.findall(r'"(step_\d+)"', json.dumps(content)))
    lost = sorted(name for name in names if not checkpoints.exists(name))
    if isinstance(content, dict) and not lost:
        return ""
    checkpoints.delete(SNAPSHOT)
    what = f"the checkpoint {lost[0]} is gone" if lost else f"{SNAPSHOT} cannot be read"
    return f"{what}; training goes on from the newest that is whole"


def work(settings: dict[str, Any]) -> None:
    """What each worker runs; imported there alone, so that driver and controller stay without diffusers."""
    from dhdiff_ray.on_ray.verbs.train_worker import train_worker

    train_worker(settings)
