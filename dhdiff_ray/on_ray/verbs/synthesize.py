"""Make the pairs of every category on all workers (section IV-B; DESIGN: contracts on disk).

Ray Data over fixed units, an actor pool of samplers, each unit laid down by the actor that made it. Decided: a unit is
always made whole, filled up with the requests a longer plan would have, so that the number of pairs asked for, like the
number of workers, changes no pixel; what is there is kept and counts, so a rerun makes what is missing; a unit that
fails does not stop the others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from dhdiff_ray.config import Config, SynthesizeConfig
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import map_units, one_core, side_by_side
from dhdiff_ray.pairs.make import open_pipeline
from dhdiff_ray.pairs.plan import plan, shards
from dhdiff_ray.pairs.start import start_told
from dhdiff_ray.pairs.writer import PAIRS, SETTINGS, PairWriter, pair_bytes, read_pair_rows
from dhdiff_ray.records import GOOD, Pair, Request
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts

if TYPE_CHECKING:
    from dhdiff_ray.model.pipeline import DHDiffPipeline
    from dhdiff_ray.pairs.redraw import Judge, Judged

KEPT = "the first try that is good enough"
"""Which try of a pair is written; pairs made before there were further tries lack this among their settings."""
EXECUTION = {"pairs_per_defect", "workers", "cpus_per_worker", "gpus_per_worker"}
"""What of the settings changes no pair."""


@dataclass(frozen=True)
class Unit:
    """Requests made in one batch, and those of them whose pairs are to be written."""

    requests: tuple[Request, ...]
    missing: tuple[Request, ...]

    @property
    def category(self) -> str:
        """The category of all its requests."""
        return self.requests[0].category

    @property
    def name(self) -> str:
        """Names the unit in messages."""
        return f"{self.requests[0].defect} {self.requests[0].name} to {self.requests[-1].name}"


def main(config: Config, resume: bool = False) -> int:
    """Make what is missing of the pairs; 0, or 1 if a unit failed. It always goes on with what is there."""
    run = Run(config)
    with Events(run.folder, "synthesize") as events, lease(run.folder):
        return stage(run, events)


def stage(run: Run, events: Events, category: str = "") -> int:
    """The verb inside a job; ``category`` leaves the others alone."""
    run.check_split()
    units: list[Unit] = []
    wanted: dict[str, list[Request]] = {}
    facts: dict[str, dict[str, Any]] = {}
    done: Counter[str] = Counter()
    for name in [category] if category else run.categories:
        facts[name] = model_facts(run.folder, name)
        run.check_same_split([facts[name]], "the model")
        there = existing(run.folder, name)
        refuse_mixture(run, facts[name], bool(there))
        wanted[name], missing = units_of(run, name, there)
        done[name] = len(wanted[name]) - sum(len(unit.missing) for unit in missing)
        units += missing
        events.emit("start", category=name, done=done[name], total=len(wanted[name]))
    refuse_full_disk(run, sum(len(unit.missing) for unit in units))
    if units and (message := slow_precision(run.config)):
        events.emit("warning", message=message)
    if run.config.synthesize.min_iou and units:
        train_judges(run, events, sorted({unit.category for unit in units}))
    failed = _make_all(run, events, units, done, {c: len(r) for c, r in wanted.items()})
    for name, requests in wanted.items():
        if name not in failed:
            finish(run, requests, facts[name])
            if left := empty_ones(read_pair_rows(run.folder, name)):
                message = f"{name}: no try gave a mask for {left}, as their rows say; train longer, or more redraws"
                events.emit("warning", category=name, message=message)
            events.emit("done", category=name, done=len(requests), total=len(requests))
    return 1 if failed else 0


def slow_precision(config: Config) -> str:
    """What to tell of a precision that this processor, and so likely the samplers', is slow at; empty for nothing."""
    from dhdiff_ray.model.precision import knows_bf16

    if config.synthesize.precision == "fp32" or config.synthesize.gpus_per_worker or knows_bf16():
        return ""
    return (
        "this processor has no bf16 instructions: a pair may take many times as long as with synthesize.precision=fp32"
    )


def refuse_full_disk(run: Run, pairs: int) -> None:
    """Fail before anything is made where the disk cannot hold it; an object store has no such limit.

    Raises:
        ValueError: it says how much is wanted and how much there is.
    """
    need, free = pairs * pair_bytes(run.config.data.resolution), run.folder.free_bytes()
    if free is not None and need > free:
        raise ValueError(
            f"{pairs} pairs need about {need / 1e9:.1f} GB and {run.folder.uri} has {free / 1e9:.1f} GB left; "
            "make room, ask for fewer (-n) or choose another --storage"
        )


def existing(folder: RunFolder, category: str) -> dict[str, dict[int, bool]]:
    """What lies there of each defect's pairs: index -> whether it is a whole pair or a mask without its image."""
    defects: dict[str, dict[int, bool]] = {}
    for file in folder.files(f"{PAIRS}/{category}"):
        parts = file.split("/")  # pairs/<category>/{test,ground_truth}/<defect>/NNNNNN[_mask].png
        stem = parts[-1].removesuffix(".png").removesuffix("_mask")
        if len(parts) == 5 and parts[2] != "train" and parts[3] != GOOD and stem.isdecimal():
            pairs = defects.setdefault(parts[3], {})
            pairs[int(stem)] = pairs.get(int(stem), False) or parts[2] == "test"
    return defects


def units_of(run: Run, category: str, there: dict[str, dict[int, bool]]) -> tuple[list[Request], list[Unit]]:
    """All requests of a category, those of an earlier, longer run included, and the units with a pair to make."""
    settings = run.config.synthesize
    size, asked = settings.shard_size, settings.pairs_per_defect
    extent = {defect: max([asked, *(index + 1 for index in pairs)]) for defect, pairs in there.items()}
    longest = -(-max([asked, *extent.values()]) // size) * size
    whole = run.config.model_copy(update={"synthesize": settings.model_copy(update={"pairs_per_defect": longest})})
    wanted: list[Request] = []
    units: list[Unit] = []
    for shard in shards(plan(whole, run.split, category), size):
        defect = shard[0].defect
        requests = [request for request in shard if request.index < extent.get(defect, asked)]
        missing = tuple(request for request in requests if not there.get(defect, {}).get(request.index))
        wanted += requests
        if missing:
            units.append(Unit(shard, missing))
    return wanted, units


def refuse_mixture(run: Run, facts: dict[str, Any], any_there: bool) -> None:
    """Write down what the pairs of a category are made with; pairs of two models or settings never share a folder.

    Raises:
        ValueError: the pairs that are there were made otherwise.
    """
    category, config, folder = facts["category"], run.config, run.folder
    sampling = config.synthesize.model_dump(mode="json", exclude=EXECUTION)
    now = {"weights_sha256": facts["weights_sha256"], "seed": config.run.seed, "kept": KEPT, **sampling}
    name = f"{SETTINGS}/{category}.json"
    before = folder.read_json(name) if folder.exists(name) else None
    if before is not None:  # settings that are newer than the pairs had been their defaults
        before = SynthesizeConfig().model_dump(mode="json", exclude=EXECUTION) | before
    if any_there and before is not None and before != now:
        changed = ", ".join(f"{k} = {before.get(k)!r}, now {v!r}" for k, v in now.items() if before.get(k) != v)
        raise ValueError(
            f"the pairs of {category!r} in {folder.uri} were made otherwise ({changed}); "
            f"ask for the same, or remove {PAIRS}/{category} first"
        )
    if before != now:
        folder.write_json(name, now)


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
            for pair in self._made(unit):
                if pair.request.index in missing:
                    self.writer.write_pair(pair)
            if ray.is_initialized():
                meters.made(self.config.run.name, unit.category, len(missing), time.monotonic() - start)
        return time.monotonic() - start

    def _made(self, unit: Unit) -> list[Pair]:
        from dhdiff_ray.pairs.redraw import make_usable

        pipeline, category = self._pipeline(unit.category), unit.category
        judge = self._judge(category) if self.config.synthesize.min_iou else None
        kept = make_usable(unit.requests, pipeline, self.config, self.run.split.train, judge)
        self.run.folder.write_json(
            _tries(category, unit.requests[0]), [self._tried(one) for one in kept]
        )  # before its pairs
        return [one.pair for one in kept]

    def _tried(self, kept: Judged) -> dict[str, Any]:
        return tried(kept) | start_told(kept.pair.request, self.config.synthesize)

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


def _make_all(run: Run, events: Events, units: list[Unit], done: Counter[str], total: dict[str, int]) -> set[str]:
    """Run all units, telling progress; returns the categories in which a unit failed."""
    s = run.config.synthesize
    failed: set[str] = set()
    pool = {"workers": s.workers, "cpus": s.cpus_per_worker, "gpus": s.gpus_per_worker}
    for at, seconds, error in map_units(units, Maker, {"run": run}, **pool):
        unit = units[at]
        if error:
            failed.add(unit.category)
            meters.failed("synthesize", unit.category)
            events.emit("failed", category=unit.category, message=f"{unit.name}: {error}")
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


def finish(run: Run, requests: Sequence[Request], facts: dict[str, Any]) -> None:
    """Complete a category whose pairs are all there: real normal images beside them, metadata, card."""
    category, config = facts["category"], run.config
    split, writer = run.category(category), PairWriter(run.folder)
    train, test = ([s for s in side if s.is_good] for side in (split.train, split.test))
    writer.write_normals(category, train, test, config.data.resolution)
    made_with = {
        "control": "raw_mask" if config.synthesize.control else None,
        "weights_sha256": facts["weights_sha256"],
        "config_digest": config.digest(),
        "split_digest": split.digest,
    }
    writer.finish(category, requests, made_with, kept_tries(run.folder, requests, config.synthesize.shard_size))


def kept_tries(folder: RunFolder, requests: Sequence[Request], size: int) -> dict[tuple[str, int], dict[str, Any]]:
    """What rows tell of the tries that were kept, by defect and index; cells of a table keep first tries, untold."""
    there = set(folder.files(f"{SETTINGS}/{requests[0].category}"))
    tries: dict[tuple[str, int], dict[str, Any]] = {}
    for shard in shards(requests, size):
        if (name := _tries(shard[0].category, shard[0])) in there:
            tries |= {(shard[0].defect, one.pop("index")): one for one in folder.read_json(name)}
    return tries


def tried(kept: Judged) -> dict[str, Any]:
    """What a row tells of the try that was kept, and the index of its row."""
    request = kept.pair.request
    row: dict[str, Any] = {"index": request.index, "seed": request.seed, "attempt": request.attempt}
    if kept.iou is not None:
        row["agreement"] = round(kept.iou, 4)
    return {**row, "empty": True} if kept.empty else row


def empty_ones(rows: Iterable[dict[str, Any]]) -> str:
    """Says of which defects masks stayed empty after all tries; empty if there are none."""
    counts = Counter(row["defect"] for row in rows if row.get("empty"))
    return ", ".join(f"{number} of {defect}" for defect, number in sorted(counts.items()))


def _tries(category: str, first: Request) -> str:
    """File that tells which try of each request of a unit was kept."""
    return f"{SETTINGS}/{category}/{first.defect}/{first.name}.json"


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
