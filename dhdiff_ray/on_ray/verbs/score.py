"""Score the pairs on all workers: what ``scoring.py`` computes, and whether image and mask agree (section IV-C).

Map, combine, value over Ray Data: shards to states, states to one per defect, states to scores; any sharding gives the
same numbers. Where there are more workers than defects, a defect's second look for IC-LPIPS is shared out too, by
cluster. Not in the paper: ``pair_alignment``, the agreement of each made mask with what a localiser trained on the
real training half sees in the made image, told beside how good that localiser is on the held-out half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dhdiff_ray.config import Config, ScoreConfig
from dhdiff_ray.metrics.base import State, summarise
from dhdiff_ray.on_ray.events import Events, Hub, Teller
from dhdiff_ray.on_ray.pool import map_units, one_core, room, side_by_side
from dhdiff_ray.pairs.writer import conditions_of, pairs_digest, read_pair, read_pair_rows, readable_rows, write_card
from dhdiff_ray.records import Sample, Score
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import Run
from dhdiff_ray.scoring.defect import Defect, DefectScorer, RealImages, combine, describe

RESULT = "scores.json"
PARTS = "scores"
"""Folder with what each category scored; the result is collected from it."""
SHARD = 32
"""Images of one unit of the map."""
ALIGNED = 200
"""Most pairs of one defect whose alignment is measured: average precision over pixels holds all of them at once."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Images of one defect: to be observed, or with all that was observed of them, to be scored."""

    category: str
    defect: str
    rows: list[Row]
    states: dict[str, State] = field(default_factory=dict)
    part: tuple[int, int] | None = None
    """Which of how many parts of the defect's clusters are to be compared; None: all that is left to do."""


def main(config: Config, resume: bool = False) -> int:
    """Score all pairs of the run into ``scores.json``; 0, or 1 if a part failed."""
    run = Run(config)
    with Events(run.folder, "score") as events, lease(run.folder):
        return stage(run, events, resume=resume)


def stage(run: Run, events: Events, category: str = "", resume: bool = True) -> int:
    """The verb inside a job; ``category`` leaves the others alone; what was scored of the same pairs may be kept."""
    settings, folder = run.config.score, run.folder
    run.check_split(category)
    names = [category] if category else run.categories
    damaged: dict[str, str] = {}
    rows = readable_rows(folder, names, damaged.__setitem__)
    for name, message in damaged.items():
        events.emit("failed", category=name, message=message)
    if not rows:
        return 1
    run.check_same_split((row for pairs in rows.values() for row in pairs), "a pair")
    refuse_what_cannot_be_scored(settings, rows)
    conditions = {name: conditions_of(run, name) for name in rows}
    rows = {name: pairs for name, pairs in rows.items() if not (resume and _part(folder, name, conditions[name]))}
    with events.hub(every=0.5) as hub:
        task = one_core(align, run.config.train.gpus_per_worker)
        oracles = {c: task.remote(run, c, hub) for c in rows} if settings.alignment else {}
        scores, broken = _scores(run, events, rows)
        aligned, errors = side_by_side(oracles)
    for name, message in errors.items():
        events.emit("failed", category=name, message=f"pair alignment: {message}")
    for name in rows:
        scored = [row for row in scores if row["category"] == name]
        whole = not (name in errors or name in broken)
        part = {"conditions": conditions[name], "settings": describe(settings), "whole": whole}
        folder.write_json(f"{PARTS}/{name}.json", part | {"scores": scored, "pair_alignment": aligned.get(name)})
        means = {row["metric"]: row["value"] for row in collected(scored) if row["level"] == "category"}
        figures = {k: v for k, v in aligned.get(name, {}).items() if k not in ("oracle", "reference")}
        events.emit("metric", category=name, **means, **figures)
    if not category:
        collect(run)
    return 1 if broken or errors or damaged else 0


def collect(run: Run) -> None:
    """Write ``scores.json`` from what all categories scored, of the pairs as they are now and alike, and the card."""
    rows: list[Row] = []
    aligned: dict[str, Any] = {}
    settings = describe(run.config.score)
    for name in run.split.categories:
        part = _part(run.folder, name)
        if part is None or part["settings"] != settings:
            continue
        if part["conditions"]["pairs_digest"] == pairs_digest(run.folder, name):
            rows += part["scores"]
            if part["pair_alignment"]:
                aligned[name] = part["pair_alignment"]
    result = {"scores": collected(rows), "pair_alignment": aligned, "conditions": settings}
    run.folder.write_json(RESULT, result)
    write_card(run.folder)


def collected(rows: Sequence[Row]) -> list[Row]:
    """The scores of defects, and their means over each category and the run."""
    scores: dict[str, dict[tuple[str, str], Score]] = {}
    names = {entry.name for entry in fields(Score)}
    for row in rows:
        score = Score(**{name: value for name, value in row.items() if name in names})
        scores.setdefault(score.metric, {})[row["category"], row["defect"]] = score
    return [row for name in sorted(scores) for row in summarise(scores[name])]


def _part(folder: RunFolder, category: str, conditions: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What was scored of a category, if it was under these conditions and as a whole."""
    name = f"{PARTS}/{category}.json"
    part = folder.facts(name)
    as_asked = not conditions or (part.get("conditions") == conditions and part.get("whole"))
    return part if part and as_asked else None


def refuse_what_cannot_be_scored(config: ScoreConfig, rows: dict[str, list[Row]]) -> None:
    """Fail before anything is computed.

    Raises:
        ValueError: too few pairs of a defect, or the networks' weights are not there.
    """
    counts = Counter((category, row["defect"]) for category, pairs in rows.items() for row in pairs)
    (category, defect), fewest = min(counts.items(), key=lambda item: item[1])
    if "is" in config.metrics and fewest < config.splits:
        raise ValueError(
            f"{category}/{defect} has {fewest} pairs, which cannot be cut into {config.splits} splits; "
            f"make more pairs or pass --set score.splits={fewest}"
        )
    from dhdiff_ray.metrics.features.choose import check_files

    check_files(config)


def shards(rows: dict[str, list[Row]], size: int = SHARD) -> list[Shard]:
    """Units of the map: up to ``size`` images of one defect."""
    units = []
    for category, pairs in rows.items():
        for defect in dict.fromkeys(row["defect"] for row in pairs):
            same = [row for row in pairs if row["defect"] == defect]
            units += [Shard(category, defect, same[i : i + size]) for i in range(0, len(same), size)]
    return units


def merged(units: Sequence[Shard], observed: Sequence[dict[str, State]]) -> list[Shard]:
    """One shard per defect, holding everything that was observed of its images."""
    by_defect: dict[tuple[str, str], list[int]] = {}
    for at, unit in enumerate(units):
        by_defect.setdefault((unit.category, unit.defect), []).append(at)
    return [
        Shard(
            *key,
            rows=[row for at in parts for row in units[at].rows],
            states={
                kind: combine(kind, [observed[at].get(kind, {}) for at in parts])
                for kind in sorted({kind for at in parts for kind in observed[at]})  # a shard may add nothing to one
            },
        )
        for key, parts in by_defect.items()
    ]


def comparisons(defects: Sequence[Shard], workers: int) -> list[Shard]:
    """The second pass of IC-LPIPS in parts, one per worker; none with fewer than two workers per defect."""
    parts = workers // len(defects) if defects else 0
    bare = [replace(unit, states={"distances": unit.states["distances"]}) for unit in defects if parts > 1]
    return [replace(unit, part=(at, parts)) for unit in bare for at in range(parts)]


class Scorer:
    """One worker of the pool: observes shards, and scores defects that were observed as a whole."""

    def __init__(self, run: Run) -> None:
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.run = run
        self.scorer = DefectScorer(run.config.score, run.config.run.seed)
        self._last: Defect | None = None

    def __call__(self, unit: Shard) -> Any:
        """States of a shard, by kind; what a part of a defect's clusters compares to; or the scores of a defect."""
        defect = self._defect(unit.category, unit.defect)
        if unit.part:
            return self.scorer.compare(defect, unit.states["distances"], *unit.part)
        if unit.states:
            return self.scorer.value(defect, unit.states)
        return self.scorer.observe(defect, [row["file_name"] for row in unit.rows])

    def _defect(self, category: str, defect: str) -> Defect:
        """A defect's pairs and real images; the last one is kept."""
        if self._last is None or (self._last.category, self._last.defect) != (category, defect):
            folder, split = self.run.folder, self.run.split
            rows = {r["file_name"]: r for r in read_pair_rows(folder, category) if r["defect"] == defect}
            self._last = Defect(
                category,
                defect,
                tuple(rows),
                lambda name: read_pair(folder, rows[name])[0],
                lambda name: read_pair(folder, rows[name])[1],
                *(self._real(side, category, defect) for side in (split.train, split.test)),
            )
        return self._last

    def _real(self, side: Sequence[Sample], category: str, defect: str) -> RealImages:
        from dhdiff_ray.data.images import read_many

        data = self.run.config.data
        wanted = [sample for sample in side if (sample.category, sample.defect) == (category, defect)]
        samples, images, masks = read_many(wanted, data.resolution, data.skip_bad, lambda _: None)
        return RealImages(tuple(sample.key for sample in samples), tuple(images), tuple(masks))


def align(run: Run, category: str, hub: Hub) -> dict[str, Any]:
    """Do the made masks of a category lie where a localiser that learned from real ones sees the defect: the task."""
    import torch

    from dhdiff_ray.detector.evaluate import alignment, evaluate, predict
    from dhdiff_ray.detector.kinds import Detectors
    from dhdiff_ray.metrics.detection import agreement

    torch.set_num_threads(1)
    teller = Teller(hub, "score", f"{category}, localiser", run.config.detect.steps)
    detectors = Detectors(run, category, teller)
    model, facts = detectors.real_localiser()
    _, images, masks = detectors.test_half()
    oracle = {**evaluate(model, images, masks), **facts}
    defective = masks.reshape(len(masks), -1).any(axis=1)
    real = agreement(masks[defective], predict(model, images[defective])) if defective.any() else {}
    rows = [row for row in read_pair_rows(run.folder, category) if row["index"] < ALIGNED]
    aligned = {**alignment(model, *detectors.stacked(rows)), "reference": real, "oracle": oracle}
    min_iou = run.config.synthesize.min_iou
    chosen = {"pairs_chosen_by_the_oracle_above": min_iou} if min_iou else {}
    again = sum(row["attempt"] > 0 for row in rows) / len(rows)
    return {**aligned, "drawn_again": again, **chosen}


def _scores(run: Run, events: Events, rows: dict[str, list[Row]]) -> tuple[list[Row], set[str]]:
    """Scores of defects, and the categories of which a part failed; a defect of which a part failed gets no score."""
    settings, gpus = run.config.score, run.config.synthesize.gpus_per_worker
    broken: set[tuple[str, str]] = set()

    def mapped(units: Sequence[Shard]) -> Iterator[tuple[int, Any]]:
        """Positions and answers; what failed is told, and its defect is broken."""
        for at, answer, error in map_units(units, Scorer, {"run": run}, workers=settings.workers, gpus=gpus):
            unit = units[at]
            if error:
                broken.add((unit.category, unit.defect))
                events.emit("failed", category=unit.category, message=f"{unit.defect}: {error}")
            else:
                yield at, answer

    def unbroken(units: Sequence[Shard]) -> list[int]:
        return [at for at, unit in enumerate(units) if (unit.category, unit.defect) not in broken]

    units = shards(rows)
    observed: dict[int, dict[str, State]] = {}
    done: Counter[str] = Counter()
    for at, states in mapped(units):
        observed[at] = states
        done[units[at].category] += len(units[at].rows)
        category = units[at].category
        events.emit("progress", category=category, done=done[category], total=len(rows[category]))
    whole = unbroken(units)
    defects = merged([units[at] for at in whole], [observed[at] for at in whole])
    if "ic_lpips" in settings.metrics:
        parts = comparisons(defects, settings.workers or room(1, gpus))
        compared: dict[tuple[str, str], list[State]] = {}
        for at, spreads in mapped(parts):
            compared.setdefault((parts[at].category, parts[at].defect), []).append(spreads)
        defects = [with_spreads(defects[at], compared) for at in unbroken(defects)]
    conditions = {"config_digest": run.config.digest(), "split_digest": run.split.digest}
    scores: list[Row] = []
    for at, values in mapped(defects):
        unit = defects[at]
        for score in values:
            full = replace(score, conditions={**score.conditions, **conditions})
            scores.append({"category": unit.category, "defect": unit.defect, **full.as_dict()})
    scores.sort(key=lambda row: (row["category"], row["defect"], row["metric"]))
    return scores, {category for category, _ in broken}


def with_spreads(unit: Shard, compared: dict[tuple[str, str], list[State]]) -> Shard:
    """A defect with what its parts compared to, if it was cut into parts."""
    parts = compared.get((unit.category, unit.defect))
    return replace(unit, states={**unit.states, "spreads": combine("spreads", parts)}) if parts else unit
