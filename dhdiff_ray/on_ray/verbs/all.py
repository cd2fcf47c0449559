"""``submit all``: every category goes through the whole line by itself, in one job.

Train, make pairs, score, test a detector; a category's next stage begins as soon as its last one is done, whatever the
others do, and the page is written at the end. Not in the paper. Decided: a stage is a Ray task that runs the verb's own
code for one category, so that a lost process or node costs a retry; stages near the end of the line go first, so that
the first categories are whole early; rerunning the same command goes on, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections import deque
from importlib import import_module
from typing import Any

import ray
from ray.exceptions import RayError

from dhdiff_ray.config import Config
from dhdiff_ray.detector import results
from dhdiff_ray.detector.kinds import refuse_missing
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.events import Events, Hub, Relay
from dhdiff_ray.on_ray.pool import reason
from dhdiff_ray.on_ray.verbs import VERBS, score
from dhdiff_ray.on_ray.verbs.detect import tell_verdict
from dhdiff_ray.on_ray.verbs.train import lay_out, place_of, slots
from dhdiff_ray.report.price import PLAN, plan_of
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import CONFIG, Run
from dhdiff_ray.run.status import STAGES

RETRIES = 3
"""Tries of a stage whose process or node was lost."""


def main(config: Config, resume: bool = False) -> int:
    """All stages of all categories; 0, or 1 if a category failed."""
    refuse_missing(config.detect.network)  # now, not after hours of training
    run = Run(config)
    folder = run.folder
    if folder.exists(CONFIG) and not resume and Run.stored(folder).config.digest() != config.digest():
        raise ValueError(
            f"the run {folder.uri} exists with another configuration; ask for the same, add --resume to go on "
            "with it as it is asked now, or choose another --run"
        )
    with Events(folder, "all") as events, lease(folder):
        categories = lay_out(run, events)
        events.emit(PLAN, **plan_of(run))
        with events.hub(every=0.5) as hub:
            failed = run_line(run, categories, hub, events)
        score.collect(run)  # once: each looks at all categories
        results.collect(run)  # writes the card too
        from dhdiff_ray.report.page import write_report

        events.emit("page", place=write_report(config))
        tell_verdict(run, events)
    return 1 if failed else 0


def run_line(run: Run, categories: list[str], hub: Hub, events: Events) -> list[str]:
    """Run every category's stages in order, as many at a time as training fits; returns the categories that failed."""
    task = ray.remote(num_cpus=0, max_retries=RETRIES)(run_stage)
    waiting = deque((category, 0) for category in categories)
    live: dict[ray.ObjectRef[dict[str, float]], tuple[str, int, float]] = {}
    failed: list[str] = []

    def tell(category: str, at: int, state: str, **more: Any) -> None:
        events.emit("stage", verb=STAGES[at], category=category, state=state, **more)

    for category in categories:
        for at in range(len(STAGES)):
            tell(category, at, "waiting")
    while waiting or live:
        while waiting and len(live) < slots(run.config):
            category, at = waiting.popleft()
            tell(category, at, "running")
            where = place_of(run.config) if STAGES[at] == "train" else {}
            named = task.options(name=f"{STAGES[at]}:{category}", **where)
            reference = named.remote(run, STAGES[at], category, hub)
            live[reference] = (category, at, time.monotonic())
        done, _ = ray.wait(list(live), timeout=2)
        for reference in done:
            category, at, start = live.pop(reference)
            spent = {"seconds": round(time.monotonic() - start, 1)}
            try:
                spent |= ray.get(reference)
            except RayError as error:
                failed.append(category)
                meters.failed(STAGES[at], category)
                tell(category, at, "failed", message=reason(error), **spent)
                events.emit("failed", verb=STAGES[at], category=category, message=reason(error), trace=str(error))
                continue
            tell(category, at, "done", **spent)
            if at + 1 < len(STAGES):
                waiting.appendleft((category, at + 1))
    return failed


def run_stage(run: Run, verb: str, category: str, hub: Hub) -> dict[str, float]:
    """One stage of one category: the task; returns the GPU seconds of its workers, at least.

    Raises:
        ValueError: a part of it failed and was told.
    """
    config = run.config
    reasons: list[str] = []
    busy: list[float] = []

    class Listening(Relay):
        """Collects the failures of a stage for its one line, and its workers' busy seconds."""

        def emit(self, event: str = "progress", **fields: Any) -> None:
            busy.append(float(fields.get("seconds", 0.0)))
            if event == "failed":
                reasons.append(str(fields.get("message", "failed")))
                event = "warning"  # the stage's own end tells the failure
            super().emit(event, **fields)

    start = time.monotonic()
    if import_module(VERBS[verb]).stage(run, Listening(run.folder, verb, hub), category):
        raise ValueError("; ".join(reasons) or f"{verb} failed")
    workers = config.train.least_workers if verb == "train" else 1
    part = config.train if verb in ("train", "detect") else config.synthesize
    seconds = sum(busy) or workers * (time.monotonic() - start)
    return {"gpu_seconds": round(part.gpus_per_worker * seconds, 1)}
