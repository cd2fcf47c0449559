"""Score the pairs on all workers: IS, IC-LPIPS, and whether image and mask agree (section IV-C).

Map, merge, value over Ray Data: shards to rows, rows to one table per defect, tables to scores; any sharding gives the
same numbers. Not in the paper: ``pair_alignment``, the agreement of each made mask with what a localiser trained on the
real training half sees in the made image, told beside how good that localiser is on the held-out half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dhdiff_ray.config import Config
from dhdiff_ray.data.split import Split
from dhdiff_ray.data.writer import read_pair, read_pair_rows, write_card
from dhdiff_ray.metrics.base import State, merge, summarise
from dhdiff_ray.on_ray.detect import Teller, localiser_task, read_real, real_localiser, split_digest, stack_pairs
from dhdiff_ray.on_ray.entry import entry
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.pool import map_units, side_by_side
from dhdiff_ray.on_ray.run import category_names, check_same_split, run_folder, stored_split
from dhdiff_ray.records import Score

RESULT = "scores.json"
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


def main(config: Config, resume: bool = False) -> int:
    """Score all pairs of the run into ``scores.json``; 0, or 1 if a part failed."""
    folder = run_folder(config)
    with Events(folder, "score") as events:
        split = stored_split(folder, config.data.root, config)
        rows = {category: read_pair_rows(folder, category) for category in category_names(config, split)}
        check_same_split((row for own in rows.values() for row in own), split, "a pair")
        refuse_what_cannot_be_scored(config, rows)
        values = config.model_dump(mode="json")
        with events.hub(every=0.5) as hub:
            task = localiser_task(config)(align)
            oracles = {c: task.remote(values, c, hub) for c in rows} if config.score.alignment else {}
            scores, failed = _scores(config, events, rows, split_digest(split))
            aligned, errors = side_by_side(oracles)
        for category, message in errors.items():
            events.emit("failed", category=category, message=f"pair alignment: {message}")
        for category in rows:
            own = {s["metric"]: s["value"] for s in scores if (s["level"], s["category"]) == ("category", category)}
            found = {key: value for key, value in aligned.get(category, {}).items() if key != "oracle"}
            events.emit("metric", category=category, **own, **found)
        folder.write_json(RESULT, {"scores": scores, "pair_alignment": aligned})
        write_card(folder)
    return 1 if failed or errors else 0


def refuse_what_cannot_be_scored(config: Config, rows: dict[str, list[Row]]) -> None:
    """Fail before anything is computed.

    Raises:
        ValueError: too few pairs of a defect, or the networks' weights are not there.
    """
    counts = Counter((category, row["defect"]) for category, own in rows.items() for row in own)
    (category, defect), fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < config.score.splits:
        raise ValueError(
            f"{category}/{defect} has {fewest} pairs, which cannot be cut into {config.score.splits} splits; "
            f"make more pairs or pass --set score.splits={fewest}"
        )
    if config.score.features == "inception":
        from dhdiff_ray.metrics.published import find_weights

        find_weights(config.score.weights_dir)


def shards(rows: dict[str, list[Row]], size: int = SHARD) -> list[Shard]:
    """Units of the map: up to ``size`` images of one defect."""
    units = []
    for category, own in rows.items():
        for defect in dict.fromkeys(row["defect"] for row in own):
            same = [row for row in own if row["defect"] == defect]
            units += [Shard(category, defect, same[i : i + size]) for i in range(0, len(same), size)]
    return units


def merged(units: Sequence[Shard], observed: Sequence[dict[str, State]]) -> list[Shard]:
    """One shard per defect, holding everything that was observed of its images."""
    together: dict[tuple[str, str], list[int]] = {}
    for at, unit in enumerate(units):
        together.setdefault((unit.category, unit.defect), []).append(at)
    return [
        Shard(
            *key,
            rows=[row for at in own for row in units[at].rows],
            states={name: merge(observed[at][name] for at in own) for name in observed[own[0]]},
        )
        for key, own in together.items()
    ]


class Scorer:
    """One worker of the pool: observes shards, and scores defects that were observed as a whole."""

    def __init__(self, config: dict[str, Any]) -> None:
        import torch

        from dhdiff_ray.metrics.features import open_features
        from dhdiff_ray.metrics.inception_score import InceptionScore

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.config = Config.model_validate(config)
        self.folder = run_folder(self.config)
        self.split = Split.from_json(self.folder.read_json("split.json"))
        self.features = open_features(self.config.score)
        self.inception = InceptionScore(self.features, self.config.score.splits)
        self._near: tuple[tuple[str, str], Any] = (("", ""), None)

    def __call__(self, unit: Shard) -> Any:
        """Rows of a shard, by metric; or the scores of a defect."""
        return self.value(unit) if unit.states else self.observe(unit)

    def observe(self, unit: Shard) -> dict[str, State]:
        """What both metrics see of a shard's images."""
        names = [row["file_name"] for row in unit.rows]
        images = self._images(unit.rows)
        near = self._distances(unit.category, unit.defect)
        return {"is": self.inception.observe(names, images), "ic_lpips": near.observe(names, images)}

    def value(self, unit: Shard) -> list[Score]:
        """The scores of one defect."""
        from dhdiff_ray.metrics.ic_lpips import IcLpips

        size, seed = self.config.score.cluster_size, self.config.run.seed
        clusters = self._distances(unit.category, unit.defect).clusters(unit.states["ic_lpips"], size, seed)
        second = IcLpips(self.features, clusters, {"cluster_size": size, "seed": seed})
        by_name = {row["file_name"]: row for row in unit.rows}
        spreads: State = {}
        for cluster in clusters:
            if len(cluster.members) >= 2:
                spreads |= second.observe(cluster.centre, self._images([by_name[name] for name in cluster.members]))
        return [self.inception.value(unit.states["is"]), second.value(spreads)]

    def _images(self, rows: Sequence[Row]) -> np.ndarray:
        return np.stack([read_pair(self.folder, row)[0] for row in rows])

    def _distances(self, category: str, defect: str) -> Any:
        if self._near[0] != (category, defect):
            from dhdiff_ray.data.images import read_image
            from dhdiff_ray.metrics.ic_lpips import CentreDistances

            real = [s for s in self.split.train if (s.category, s.defect) == (category, defect)]
            images = np.stack([read_image(s, self.config.data.resolution) for s in real])
            self._near = ((category, defect), CentreDistances(self.features, [s.key for s in real], images))
        return self._near[1]


def align(values: dict[str, Any], category: str, hub: Any) -> dict[str, Any]:
    """Do the made masks of a category lie where a localiser that learned from real ones sees the defect: the task."""
    import torch

    from dhdiff_ray.detector.evaluate import alignment, evaluate

    torch.set_num_threads(1)
    config = Config.model_validate(values)
    folder = run_folder(config)
    split = Split.from_json(folder.read_json("split.json")).category(category)
    tell = Teller(hub, "score", f"{category}, localiser", config.detect.steps)
    model, facts = real_localiser(config, folder, split, tell)
    _, images, masks = read_real(config, split.test, tell)
    oracle = {**evaluate(model, images, masks), **facts}
    rows = [row for row in read_pair_rows(folder, category) if row["index"] < ALIGNED]
    return {**alignment(model, *stack_pairs(folder, rows)), "oracle": oracle}


def _scores(
    config: Config, events: Events, rows: dict[str, list[Row]], split_hash: str
) -> tuple[list[dict[str, Any]], bool]:
    """Rows for ``scores.json``, and whether a part failed; a defect of which a part failed gets no score."""
    gpus = config.synthesize.gpus_per_worker
    pool = {"workers": config.score.workers, "gpus": gpus}
    arguments = {"config": config.model_dump(mode="json")}
    units = shards(rows)
    observed: dict[int, dict[str, State]] = {}
    broken: set[tuple[str, str]] = set()
    done: Counter[str] = Counter()
    for at, states, error in map_units(units, Scorer, arguments, **pool):
        unit = units[at]
        if error:
            broken.add((unit.category, unit.defect))
            events.emit("failed", category=unit.category, message=f"{unit.defect}: {error}")
            continue
        observed[at] = states
        done[unit.category] += len(unit.rows)
        events.emit("progress", category=unit.category, done=done[unit.category], total=len(rows[unit.category]))
    whole = [at for at, unit in enumerate(units) if (unit.category, unit.defect) not in broken]
    defects = merged([units[at] for at in whole], [observed[at] for at in whole])
    conditions = {"config_digest": config.digest(), "split_digest": split_hash}
    scores: dict[str, dict[tuple[str, str], Score]] = {}
    for at, values, error in map_units(defects, Scorer, arguments, **pool):
        unit = defects[at]
        if error:
            broken.add((unit.category, unit.defect))
            events.emit("failed", category=unit.category, message=f"{unit.defect}: {error}")
            continue
        for score in values:
            full = replace(score, conditions={**score.conditions, **conditions})
            scores.setdefault(score.metric, {})[unit.category, unit.defect] = full
    return [row for name in sorted(scores) for row in summarise(scores[name])], bool(broken)


if __name__ == "__main__":
    from dhdiff_ray.on_ray import score  # what is sent to actors must have a name that they can import

    entry(score.main)
