"""Make the pairs of every category on all workers (section IV-B; DESIGN: contracts on disk).

A pool of samplers over fixed units, each laid down by the one that made it. Decided: a unit is always made whole,
filled up with the requests a longer plan would have, so that the number of pairs asked for, like the number of workers,
changes no pixel; what is there is kept and counts, so a rerun makes what is missing; a unit that fails does not stop
the others. Categories are planned one after the other while samplers work, and finished as soon as they are whole, so
that the driver never holds more than a few of them.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import ray

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import map_units, one_core, side_by_side
from dhdiff_ray.pairs.intact import marker_row, tries_file
from dhdiff_ray.pairs.lots import ArchiveUnit, Lot, batches_of, crowded, lot_of, refuse_two_layouts
from dhdiff_ray.pairs.make import open_pipeline
from dhdiff_ray.pairs.units import Unit, refuse_full_disk, surely_fits, try_row
from dhdiff_ray.pairs.writer import Encoded, PairsError, PairWriter, pair_row, write_card
from dhdiff_ray.records import Request, Sample
from dhdiff_ray.report.price import PLAN, plan_of
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.redraw import Judge

FINISHING = 2
"""Categories that are finished at once, each by a thread of the driver."""


def main(config: Config, resume: bool = False) -> int:
    """Make what is missing of the pairs; 0, or 1 if a unit failed. It always goes on with what is there."""
    run = Run(config)
    with Events(run.folder, "synthesize") as events, lease(run.folder):
        return stage(run, events)


def stage(run: Run, events: Events, category: str = "") -> int:
    """The verb inside a job; ``category`` leaves the others alone, and the card to whoever does them all."""
    run.check_split(category)
    refuse_two_layouts(run)
    if not category:
        events.emit(PLAN, **plan_of(run))
    names, s = [category] if category else run.categories, run.config.synthesize
    for name in names:  # a category that is not trained is told now, not when its turn comes
        with contextlib.suppress(DamagedError):  # its own turn tells it, and stops no other
            model_facts(run.folder, name)
    work = Work(run, events)
    if message := crowded(run):
        events.emit("warning", message=message)
    lots: Iterable[Lot] = work.planned(names)
    if s.min_iou or not surely_fits(run, names):  # judges need their cores, and the disk its answer, before the rest
        lots = list(lots)
        refuse_full_disk(run, sum(len(unit.missing) for lot in lots for unit in lot.units))
        if wanting := sorted({lot.category for lot in lots if lot.units and s.min_iou}):
            train_judges(run, events, wanting)
    pool = {"workers": s.workers, "cpus": s.cpus_per_worker, "gpus": s.gpus_per_worker, "seconds": s.unit_seconds}
    batches = partial(batches_of, size=s.shard_size)
    for at, seconds, error in map_units(work.units(lots), Maker, {"run": run}, batches=batches, **pool):
        work.take(at, seconds, error)
    work.close()
    if not category:
        write_card(run.folder)
    return 1 if work.failed else 0


class Work:
    """The categories under way: what is missing of them, and what is being finished beside the driver's own work."""

    def __init__(self, run: Run, events: Events) -> None:
        self.run, self.events = run, events
        self.failed: set[str] = set()
        """Categories with a unit, or as a whole, that failed."""
        self._held: dict[int, Unit | ArchiveUnit] = {}
        """Units that samplers have, by position."""
        self._lots: dict[str, Lot] = {}
        self._done: Counter[str] = Counter()
        """Pairs that are there."""
        self._open: Counter[str] = Counter()
        """Units that are not done."""
        self._told: set[tuple[str, str]] = set()
        self._threads = ThreadPoolExecutor(FINISHING)
        self._finishing: dict[Future[str], str] = {}

    def planned(self, categories: Sequence[str]) -> Iterator[Lot]:
        """What there is of each category and what is missing, without those too damaged to go on with."""
        for category in categories:
            try:
                lot = lot_of(self.run, category)
            except DamagedError as error:
                self._fail(category, str(error))
                continue
            if lot.damaged:
                (file, problem), *_ = sorted(lot.damaged.items())
                words = f"{len(lot.damaged)} damaged files, the first is {file} ({problem}); their pairs are made again"
                self.events.emit("warning", category=category, message=f"{category}: {words}")
            yield lot

    def units(self, lots: Iterable[Lot]) -> Iterator[Unit | ArchiveUnit]:
        """The units of each category, in order; a category is begun when its first is drawn."""
        count = itertools.count()
        for lot in lots:
            name = lot.category
            self._lots[name], self._done[name], self._open[name] = lot, lot.done, len(lot.units)
            self.events.emit("start", category=name, done=lot.done, total=lot.total)
            if not lot.units:
                self._finish(name)
            for unit in lot.units:
                at = next(count)
                if not at:
                    self._warn_of_slow_precision()
                self._held[at] = unit
                yield unit

    def take(self, at: int, seconds: float, error: str) -> None:
        """A unit is done, or failed."""
        unit = self._held.pop(at)
        name = unit.category
        self._open[name] -= 1
        if error:
            if (name, error) not in self._told:  # a damaged model fails all its units alike
                self._fail(name, f"{unit.name}: {error}")
            self._told.add((name, error))
        else:
            self._done[name] += len(unit.missing)
            of = {"category": name, "done": self._done[name], "total": self._lots[name].total}
            self.events.emit("progress", **of, made=len(unit.missing), seconds=round(seconds, 3))
        if not self._open[name]:
            self._finish(name)
        self._tell_finished([future for future in self._finishing if future.done()])

    def close(self) -> None:
        """Wait for what is being finished."""
        self._tell_finished(list(self._finishing))
        self._threads.shutdown()

    def _finish(self, name: str) -> None:
        if name in self.failed:
            self._lots.pop(name)
            return
        if len(self._finishing) >= 2 * FINISHING:  # else what waits would pile up
            self._tell_finished(list(self._finishing)[:1])
        self._finishing[self._threads.submit(self._lots[name].finish, self.run)] = name

    def _tell_finished(self, futures: Sequence[Future[str]]) -> None:
        for future in futures:
            name = self._finishing.pop(future)
            lot = self._lots.pop(name)
            try:
                empty = future.result()
            except (DamagedError, PairsError) as error:
                self._fail(name, str(error))
                continue
            if empty:
                message = f"no try gave a mask for {empty}, as their rows say; train longer, or more redraws"
                self.events.emit("warning", category=name, message=f"{name}: {message}")
            self.events.emit("done", category=name, done=lot.total, total=lot.total)

    def _fail(self, category: str, message: str) -> None:
        self.failed.add(category)
        meters.failed("synthesize", category)
        self.events.emit("failed", category=category, message=message)

    def _warn_of_slow_precision(self) -> None:
        s = self.run.config.synthesize
        if s.precision != "fp32" and not s.gpus_per_worker:  # asked where samplers are: a driver has no torch
            message = cast(str, ray.get(one_core(slow_precision, 0).remote(self.run.config)))
            if message:
                self.events.emit("warning", message=message)


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
        self._encoders = ThreadPoolExecutor(self.config.synthesize.cpus_per_worker)
        """Make files of what is drawn, for an archive while its next batch is drawn: a GPU does not wait for PNG."""
        self._pipelines: dict[str, DHDiffPipeline] = {}
        self._judges: dict[str, Judge] = {}
        self._samples: dict[str, tuple[Sample, ...]] = {}
        """Training images of the category, not of a whole run's: each unit looks through them."""

    def __call__(self, unit: Unit | ArchiveUnit) -> float:
        """Make one unit and lay down what is missing of it; returns the seconds it took."""
        start = time.monotonic()
        made = self._archive(unit) if isinstance(unit, ArchiveUnit) else self._files(unit)
        if made and ray.is_initialized():
            meters.made(self.config.run.name, unit.category, made, time.monotonic() - start)
        return time.monotonic() - start

    def _files(self, unit: Unit) -> int:
        """Each pair in files of its own; returns how many there were to make."""
        missing = {r.index for r in unit.missing if not self.writer.has_pair(r)}
        if not missing:  # another try had got this far
            return 0
        for request, pair in self._made(unit):
            if request.index in missing:
                self.writer.write_encoded(request, pair)
        return len(missing)

    def _made(self, unit: Unit) -> list[tuple[Request, Encoded]]:
        """One batch, and its marker, which is written before its pairs."""
        drawn = [(request, row, pair.result()) for request, row, pair in self._drawn(unit.requests)]
        rows = [marker_row(row, pair.promises) for _, row, pair in drawn]
        self.run.folder.write_json(tries_file(unit.category, unit.requests[0]), rows)
        return [(request, pair) for request, _, pair in drawn]

    def _archive(self, unit: ArchiveUnit) -> int:
        """Batch after batch into one archive; returns how many pairs there were to make."""
        if unit.is_there(self.run.folder):
            return 0
        pairs, told = unit.held_pairs(self.run.folder), unit.told
        drawn = [one for requests in unit.batches(self.run) for one in self._drawn(requests)]
        for request, row, pair in (one for one in drawn if one[0].index in unit.missing):
            files = pair.result()
            pairs.append((pair_row(request) | row | told, (files.image, files.mask)))
        unit.write(self.run.folder, pairs)
        return len(unit.missing)

    def _drawn(self, requests: Sequence[Request]) -> list[tuple[Request, dict[str, Any], Future[Encoded]]]:
        """One batch: each pair's request as it was kept, what its row tells of the try, and its bytes on their way."""
        import torch

        from dhdiff_ray.pairs.redraw import make_usable

        torch.set_flush_denormal(True)
        category = requests[0].category
        pipeline = self._pipeline(category)
        judge = self._judge(category) if self.config.synthesize.min_iou else None
        if category not in self._samples:
            self._samples = {category: self.run.category(category).train}
        kept = make_usable(requests, pipeline, self.config, self._samples[category], judge)
        encode, settings = partial(self._encoders.submit, Encoded.of), self.config.synthesize
        return [(one.pair.request, try_row(one, settings), encode(one.pair)) for one in kept]

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
            with self.run.folder.fetched(f"models/{category}") as model:
                gpus = self.config.synthesize.gpus_per_worker
                self._pipelines[category] = open_pipeline(self.config, model, gpus)
        return self._pipelines[category]


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
