"""Make the pairs of every category on all workers (section IV-B; DESIGN: contracts on disk).

Ray Data over fixed units, an actor pool of samplers, each unit laid down by the actor that made it. Decided: a unit is
always made whole, filled up with the requests a longer plan would have, so that the number of pairs asked for, like the
number of workers, changes no pixel; what is there is kept and counts, so a rerun makes what is missing; a unit that
fails does not stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import ray

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import map_units, one_core, side_by_side
from dhdiff_ray.pairs.intact import FILES, tries_file
from dhdiff_ray.pairs.make import open_pipeline
from dhdiff_ray.pairs.units import CategoryPairs, Unit, refuse_full_disk, try_row
from dhdiff_ray.pairs.writer import Encoded, PairsError, PairWriter
from dhdiff_ray.records import Request
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.redraw import Judge


def main(config: Config, resume: bool = False) -> int:
    """Make what is missing of the pairs; 0, or 1 if a unit failed. It always goes on with what is there."""
    run = Run(config)
    with Events(run.folder, "synthesize") as events, lease(run.folder):
        return stage(run, events)


def stage(run: Run, events: Events, category: str = "") -> int:
    """The verb inside a job; ``category`` leaves the others alone."""
    run.check_split()
    lots, failed = _lots(run, events, [category] if category else run.categories)
    for lot in lots:
        events.emit("start", category=lot.category, done=lot.done, total=len(lot.requests))
    units = [unit for lot in lots for unit in lot.units]
    refuse_full_disk(run, sum(len(unit.missing) for unit in units))
    s = run.config.synthesize
    if units and s.precision != "fp32" and not s.gpus_per_worker:  # asked where samplers are: a driver has no torch
        message = cast(str, ray.get(one_core(slow_precision, 0).remote(run.config)))
        if message:
            events.emit("warning", message=message)
    if run.config.synthesize.min_iou and units:
        train_judges(run, events, sorted({unit.category for unit in units}))
    failed |= _make_all(run, events, units, lots)
    for lot in (lot for lot in lots if lot.category not in failed):
        try:
            empty = lot.finish(run)
        except (DamagedError, PairsError) as error:
            _fail(events, failed, lot.category, str(error))
            continue
        if empty:
            message = f"no try gave a mask for {empty}, as their rows say; train longer, or more redraws"
            events.emit("warning", category=lot.category, message=f"{lot.category}: {message}")
        events.emit("done", category=lot.category, done=len(lot.requests), total=len(lot.requests))
    return 1 if failed else 0


def _lots(run: Run, events: Events, categories: Sequence[str]) -> tuple[list[CategoryPairs], set[str]]:
    """What there is of each category and what is missing, and the categories that are too damaged to go on with."""
    lots, failed = list[CategoryPairs](), set[str]()
    for category in categories:
        try:
            lots.append(CategoryPairs.of(run, category))
        except DamagedError as error:
            _fail(events, failed, category, str(error))
    for lot in lots:
        if lot.damaged:
            (file, problem), *_ = sorted(lot.damaged.items())
            words = f"{len(lot.damaged)} damaged files, the first is {file} ({problem}); their pairs are made again"
            events.emit("warning", category=lot.category, message=f"{lot.category}: {words}")
    return lots, failed


def _fail(events: Events, failed: set[str], category: str, message: str) -> None:
    failed.add(category)
    meters.failed("synthesize", category)
    events.emit("failed", category=category, message=message)


def slow_precision(config: Config) -> str:
    """What to tell of a precision that this processor, and so likely the samplers', is slow at; empty for nothing."""
    if config.synthesize.precision == "fp32" or config.synthesize.gpus_per_worker:
        return ""
    from dhdiff_ray.model.precision import knows_bf16

    if knows_bf16():
        return ""
    return (
        "this processor has no bf16 instructions: a pair may take many times as long as with synthesize.precision=fp32"
    )


class Maker:
    """One sampler of the pool: makes units of any category, holding one category's pipeline at a time."""

    def __init__(self, run: Run) -> None:
        import torch

        self.run, self.config = run, run.config
        # Fixed whatever the machine has: sums of floats depend on the number of threads.
        torch.set_num_threads(self.config.synthesize.cpus_per_worker)
        self.writer = PairWriter(run.folder)
        self._pipelines: dict[str, DHDiffPipeline] = {}
        self._judges: dict[str, Judge] = {}

    def __call__(self, unit: Unit) -> float:
        """Make one unit and lay down what is missing of it; returns the seconds it took."""
        start = time.monotonic()
        missing = {r.index for r in unit.missing if not self.writer.has_pair(r)}
        if missing:  # else another try had got this far
            import torch

            torch.set_flush_denormal(True)
            for request, pair in self._made(unit):
                if request.index in missing:
                    self.writer.write_encoded(request, pair)
            if ray.is_initialized():
                meters.made(self.config.run.name, unit.category, len(missing), time.monotonic() - start)
        return time.monotonic() - start

    def _made(self, unit: Unit) -> list[tuple[Request, Encoded]]:
        from dhdiff_ray.pairs.redraw import make_usable

        pipeline, category = self._pipeline(unit.category), unit.category
        judge = self._judge(category) if self.config.synthesize.min_iou else None
        kept = make_usable(unit.requests, pipeline, self.config, self.run.split.train, judge)
        pairs = [Encoded.of(one.pair) for one in kept]
        told = [try_row(one, self.config.synthesize) for one in kept]
        rows = [{**row, FILES: pair.promises} for row, pair in zip(told, pairs, strict=True)]
        self.run.folder.write_json(tries_file(category, unit.requests[0]), rows)  # before its pairs
        return [(one.pair.request, pair) for one, pair in zip(kept, pairs, strict=True)]

    def _judge(self, category: str) -> Judge:
        if category not in self._judges:
            from dhdiff_ray.detector.judge import judge_by
            from dhdiff_ray.detector.unet import from_bytes

            weights = self.run.folder.read_bytes(f"detectors/{category}/real.safetensors")
            self._judges = {category: judge_by(from_bytes(weights))}
        return self._judges[category]

    def _pipeline(self, category: str) -> DHDiffPipeline:
        if category not in self._pipelines:
            self._pipelines.clear()  # first let the other one go
            model, gpus = self.run.folder.local(f"models/{category}"), self.config.synthesize.gpus_per_worker
            self._pipelines[category] = open_pipeline(self.config, model, gpus)
        return self._pipelines[category]


def _make_all(run: Run, events: Events, units: list[Unit], lots: Sequence[CategoryPairs]) -> set[str]:
    """Run all units, telling progress; returns the categories in which a unit failed."""
    s = run.config.synthesize
    failed, told = set[str](), set[tuple[str, str]]()
    done, total = {lot.category: lot.done for lot in lots}, {lot.category: len(lot.requests) for lot in lots}
    pool = {"workers": s.workers, "cpus": s.cpus_per_worker, "gpus": s.gpus_per_worker}
    for at, seconds, error in map_units(units, Maker, {"run": run}, **pool):
        unit = units[at]
        if error:
            failed.add(unit.category)
            meters.failed("synthesize", unit.category)
            if (unit.category, error) not in told:  # a damaged model fails all its units alike
                events.emit("failed", category=unit.category, message=f"{unit.name}: {error}")
            told.add((unit.category, error))
            continue
        done[unit.category] += len(unit.missing)
        events.emit(
            "progress",
            category=unit.category,
            done=done[unit.category],
            total=total[unit.category],
            made=len(unit.missing),
            seconds=round(seconds, 3),
        )
    return failed


def train_judges(run: Run, events: Events, categories: Sequence[str]) -> None:
    """Have the localiser that judges the pairs of each category, trained on its real training half.

    Raises:
        ValueError: one could not be trained.
    """
    with events.hub(every=0.5) as hub:
        task = one_core(train_judge, run.config.train.gpus_per_worker)
        _, errors = side_by_side({c: task.remote(run, c, hub) for c in categories})
    if errors:
        reasons = "; ".join(f"{category}: {message}" for category, message in errors.items())
        raise ValueError(f"the localiser that judges the pairs could not be trained: {reasons}")


def train_judge(run: Run, category: str, hub: Hub) -> None:
    """Have the run keep the localiser that judges a category's pairs: the task."""
    import torch

    from dhdiff_ray.detector.kinds import Detectors

    torch.set_num_threads(1)
    teller = Teller(hub, "synthesize", f"{category}, localiser", run.config.detect.steps)
    Detectors(run, category, teller).real_localiser()
