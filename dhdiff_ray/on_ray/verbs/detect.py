"""The paper's check as a job: a task for each category and kind of detector (IV-D; ``detector/kinds.py``).

Decided: with ``--resume`` a detector that was tested is not again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from dhdiff_ray.config import Config
from dhdiff_ray.detector import results
from dhdiff_ray.detector.kinds import Detectors, refuse_missing
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import one_core, side_by_side
from dhdiff_ray.pairs.writer import readable_rows
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run

ARRIVAL_SECONDS = 5.0
"""Seconds to wait for a training's last event; the training counts without it too."""
SHOWN = ("image_auroc", "pixel_auroc", "pixel_ap")
"""Figures that are shown while it runs."""


def main(config: Config, resume: bool = False) -> int:
    """Train and test every category's localisers; 0, or 1 if a category failed."""
    run = Run(config)
    with Events(run.folder, "detect") as events, lease(run.folder):
        failed = stage(run, events, resume=resume)
        tell_verdict(run, events)
    return failed


def stage(run: Run, events: Events, category: str = "", resume: bool = True) -> int:
    """The verb inside a job; ``category`` leaves the others alone; what was tested of the same pairs may be kept."""
    refuse_missing(run.config.detect.network)
    trainings = results.trainings_of(run.config)
    run.check_split(category)
    damaged: dict[str, str] = {}
    rows = readable_rows(run.folder, [category] if category else run.categories, damaged.__setitem__)
    categories = list(rows)
    for name in categories:
        run.check_same_split(rows[name], "a pair")  # says what to run if there are none
    for name, message in damaged.items():
        events.emit("failed", category=name, message=message)
    with events.hub(every=0.5) as hub:
        task = one_core(examine, run.config.train.gpus_per_worker)
        figures, errors = side_by_side(
            {(c, *one): task.remote(run, c, one, hub, resume) for c in categories for one in trainings}
        )
    for name in categories:
        failed = [f"{one[0]}: {errors[name, *one]}" for one in trainings if (name, *one) in errors]
        if failed:
            events.emit("failed", category=name, message="; ".join(failed))
            continue
        events.emit(
            "metric", category=name, **_short(results.together({one: figures[name, *one] for one in trainings}))
        )
    if not category:
        results.collect(run)
    return 1 if errors or damaged else 0


def tell_verdict(run: Run, events: Events) -> None:
    """Emit the verdict: whether the pairs help, for all categories tested alike."""
    stored = run.folder.read_json(results.RESULT) if run.folder.exists(results.RESULT) else {}
    for line in results.verdicts(stored):
        events.emit("verdict", message=line)


def examine(run: Run, category: str, training: tuple[str, int], hub: Hub, resume: bool) -> dict[str, Any]:
    """Train one detector and test it on the held-out half: the task.

    Its events arrive before its answer, since the driver reads its mailbox only once after that.
    """
    import torch

    torch.set_num_threads(1)
    kind, at = training
    bar = f"{kind} {at + 1}" if at else kind
    teller = Teller(hub, "detect", f"{category}, {bar}", run.config.detect.steps)
    figures = Detectors(run, category, teller, at).examined(kind, resume)
    ray.wait([hub.arrived.remote()], timeout=ARRIVAL_SECONDS)  # after all that this process sent
    return figures


def _short(figures: Mapping[str, Any]) -> dict[str, Any]:
    by_kind = {kind: part for kind, part in figures.items() if isinstance(part, dict)}
    shown = {f"{kind}_{name}": part[name] for kind, part in by_kind.items() for name in SHOWN}
    return {**shown, **{name: value for name, value in figures.items() if name not in by_kind}}
