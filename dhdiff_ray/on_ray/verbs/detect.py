"""The paper's check: per category a localiser trained on made pairs, and baselines beside it, all tested (IV-D).

Decided: all see the same number of defective images, the same normal images, steps and seed (``real_synthetic`` sees
both kinds, so twice as many), and are tested on the same held-out half, which nothing is selected on unless
``detect.select = test`` says so. The one trained on real images is kept in the run with the conditions it was trained
under; ``score`` uses it as the oracle of pair alignment. With ``--resume`` a detector that was tested is not again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many, whole_images
from dhdiff_ray.data.registry import configured
from dhdiff_ray.data.split import Split
from dhdiff_ray.detector import results as figures
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.pool import side_by_side
from dhdiff_ray.pairs.writer import conditions_of, read_pair, read_pair_rows
from dhdiff_ray.records import Sample
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.lease import lease
from dhdiff_ray.run.run import category_names, check_same_split, run_folder, stored_split

if TYPE_CHECKING:
    from torch import nn

EVENT_SECONDS = 1.0
ARRIVAL_SECONDS = 5.0
"""How long the last word of a training is waited for; without it the training counts all the same."""
HELD_OUT = 0.1
"""Share of the training pairs and normal images that ``detect.select = heldout`` judges by."""


def main(config: Config, resume: bool = False) -> int:
    """Train and test every category's localisers; 0, or 1 if a category failed."""
    folder = run_folder(config)
    with Events(folder, "detect") as events, lease(folder):
        return run(config, events, resume=resume)


def run(config: Config, events: Events, category: str = "", resume: bool = True) -> int:
    """The verb inside a job; ``category`` leaves the others alone; what was tested of the same pairs may be kept."""
    folder = run_folder(config)
    kinds = figures.kinds_of(config)
    split = stored_split(folder, config.data.root, config)
    categories = [category] if category else category_names(config, split)
    for name in categories:
        check_same_split(read_pair_rows(folder, name), split, "a pair")  # says what to run if there are none
    with events.hub(every=0.5) as hub:
        task = localiser_task(config)(_examined)
        values = config.model_dump(mode="json")
        found, errors = side_by_side(
            {(c, kind): task.remote(values, c, kind, hub, resume) for c in categories for kind in kinds}
        )
    for name in categories:
        wrong = [f"{kind}: {errors[name, kind]}" for kind in kinds if (name, kind) in errors]
        if wrong:
            events.emit("failed", category=name, message="; ".join(wrong))
            continue
        events.emit("metric", category=name, **_short(figures.together({kind: found[name, kind] for kind in kinds})))
    figures.collect(config, folder, split)
    return 1 if errors else 0


class Teller:
    """Sends the progress of one training to the driver; where the name stands for the bar it is drawn as."""

    def __init__(self, hub: Any, verb: str, name: str, steps: int) -> None:
        self._send = lambda **event: hub.emit.remote({"verb": verb, "category": name, **event})
        self._steps = steps
        self._last = 0.0

    def __call__(self, done: int, loss: float | None = None) -> None:
        """Tell the steps done, at most once a second and after the last."""
        now = time.monotonic()
        if done == self._steps or now - self._last >= EVENT_SECONDS:
            self._last = now
            loss = None if loss is None else round(loss, 5)
            self._send(event="progress", done=done, total=self._steps, loss=loss)

    def warn(self, message: str) -> None:
        """Tell something that needs a look."""
        self._send(event="warning", message=message)


def localiser_task(config: Config) -> Any:
    """What turns a function into a Ray task that has what one localiser may use: a core, and a GPU if training had."""
    gpus = min(1.0, config.train.gpus_per_worker)
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)


def examine(values: dict[str, Any], category: str, kind: str, hub: Any, resume: bool = False) -> dict[str, Any]:
    """Train one localiser and test it on the held-out half."""
    import torch

    torch.set_num_threads(1)
    config = Config.model_validate(values)
    folder = run_folder(config)
    split = Split.from_json(folder.read_json("split.json")).category(category)
    tell = Teller(hub, "detect", f"{category}, {kind}", config.detect.steps)
    conditions = conditions_of(config, folder, split, category)
    known = figures.kept(folder, category, kind) if resume else None
    if known and known["conditions"] == conditions:
        tell(config.detect.steps)
        return known["figures"]
    start = time.monotonic()
    maps_of, facts = TRAINED[kind](config, folder, split, tell)
    seconds = round(time.monotonic() - start, 2)
    found = {**tested(config, split, tell, maps_of), **facts, "seconds": seconds}
    figures.keep(folder, category, kind, conditions, found)
    return found


def _examined(values: dict[str, Any], category: str, kind: str, hub: Any, resume: bool) -> dict[str, Any]:
    """The task; what it told has arrived when its answer has, since the driver empties its mailbox only once more."""
    found = examine(values, category, kind, hub, resume)
    ray.wait([hub.arrived.remote()], timeout=ARRIVAL_SECONDS)  # after all that this process sent
    return found


def tested(config: Config, split: Split, tell: Teller, maps_of: Any) -> dict[str, Any]:
    """The figures of a detector, a function from images (n, h, w, 3) to maps (n, h, w), on the test half."""
    from dhdiff_ray.detector.evaluate import figures as measured
    from dhdiff_ray.detector.peers import peers_masks
    from dhdiff_ray.detector.saturation import saturated_regions

    samples, images, masks = read_test(config, split, tell)
    regions = saturated_regions(configured(config.data, tell.warn), Path(split.root), samples, config.data.resolution)
    if config.detect.mask_rule == "peers":
        strict, soft = peers_masks(samples, config.data.resolution)
        return measured(maps_of(images), soft, strict, regions)
    return measured(maps_of(images), masks, regions=regions)


def trained(
    config: Config, split: Split, tell: Teller, images: np.ndarray, masks: np.ndarray
) -> tuple[nn.Module, dict[str, Any]]:
    """A localiser trained on pairs and the category's normal images, and what its weights were chosen by."""
    from dhdiff_ray.detector.evaluate import evaluate
    from dhdiff_ray.detector.train import train_localiser

    _, normals, _ = read_real(config, [s for s in split.train if s.is_good], tell)
    facts: dict[str, Any] = {}
    judge: Callable[[nn.Module], float] | None = None
    if config.detect.select == "heldout":
        if len(images) < 2 or len(normals) < 2:
            raise ValueError("detect.select = heldout needs two pairs and two normal images or more; use last")
        order, calm = (np.random.default_rng([config.run.seed, 5]).permutation(len(x)) for x in (images, normals))
        apart, quiet = (max(1, round(HELD_OUT * len(x))) for x in (images, normals))
        seen = np.concatenate([images[order[:apart]], normals[calm[:quiet]]])
        truth = np.concatenate([masks[order[:apart]], np.zeros((quiet, *masks.shape[1:]), masks.dtype)])
        images, masks, normals = images[order[apart:]], masks[order[apart:]], normals[calm[quiet:]]
        facts = {"selected_on": "held-out training pairs", "n_held_out": len(seen)}
        judge = lambda model: float(evaluate(model, seen, truth)["pixel_ap"] or 0)  # noqa: E731
    elif config.detect.select == "test":
        _, seen, truth = read_test(config, split, tell)
        facts = {"selected_on": "the TEST set, as the peers do: optimistic"}
        names = ("image_auroc", "pixel_auroc", "pixel_ap", "pro")

        def peers_sum(model: nn.Module) -> float:
            found = evaluate(model, seen, truth)
            return sum(float(found[name] or 0) for name in names)

        judge = peers_sum

    return train_localiser(images, masks, normals, config.detect, config.run.seed, tell, judge=judge), facts


def real_localiser(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[nn.Module, dict[str, Any]]:
    """The localiser trained on a category's real training half: the run's own, or a new one."""
    from dhdiff_ray.detector.unet import from_bytes, to_bytes

    name = f"detectors/{split.categories[0]}/real"
    conditions = {
        "split_digest": split_digest(split),
        "seed": config.run.seed,
        "resolution": config.data.resolution,
        **config.detect.model_dump(mode="json", exclude={"baselines", "mask_rule"}),
    }
    if folder.exists(f"{name}.json"):
        known = folder.read_json(f"{name}.json")
        if known["conditions"] == conditions:
            tell(config.detect.steps)
            return from_bytes(folder.read_bytes(f"{name}.safetensors")), known["facts"]
    images, masks = real_pairs(config, split, tell)
    model, facts = trained(config, split, tell, images, masks)
    facts = {"n_train": len(images), **facts}
    folder.delete(f"{name}.json")  # never old conditions beside new weights
    folder.write_bytes(f"{name}.safetensors", to_bytes(model))
    folder.write_json(f"{name}.json", {"conditions": conditions, "facts": facts})
    return model, facts


def judge_of(values: dict[str, Any], category: str, hub: Any) -> None:
    """Have the run keep the localiser trained on a category's real training half: the task."""
    import torch

    torch.set_num_threads(1)
    config = Config.model_validate(values)
    folder = run_folder(config)
    split = Split.from_json(folder.read_json("split.json")).category(category)
    real_localiser(config, folder, split, Teller(hub, "synthesize", f"{category}, localiser", config.detect.steps))


def synthetic_localiser(
    config: Config, folder: RunFolder, split: Split, tell: Teller
) -> tuple[nn.Module, dict[str, Any]]:
    """The localiser trained on made pairs alone, at most as many of each defect as there are real ones to train on."""
    images, masks = made_pairs(folder, split)
    model, facts = trained(config, split, tell, images, masks)
    return model, {"n_pairs": len(images), **facts}


def real_pairs(config: Config, split: Split, tell: Teller) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks of a category's real training anomalies."""
    return read_real(config, [s for s in split.train if not s.is_good], tell)[1:]


def made_pairs(folder: RunFolder, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Made images and masks of a category, the first of each defect, as many as there are real ones."""
    counts: dict[str, int] = {}
    for sample in split.train:
        counts[sample.defect] = counts.get(sample.defect, 0) + 1
    rows = [r for r in read_pair_rows(folder, split.categories[0]) if r["index"] < counts.get(r["defect"], 0)]
    return stack_pairs(folder, rows)


def _network(localiser: Any) -> Any:
    """A detector, as maps from images, of what trains a network."""

    def detector(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[Any, dict[str, Any]]:
        from dhdiff_ray.detector.evaluate import predict

        model, facts = localiser(config, folder, split, tell)
        return lambda images: predict(model, images), facts

    return detector


def _both(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[Any, dict[str, Any]]:
    real, made = real_pairs(config, split, tell), made_pairs(folder, split)
    model, facts = trained(config, split, tell, *(np.concatenate(parts) for parts in zip(real, made, strict=True)))
    return model, {"n_train": len(real[0]), "n_pairs": len(made[0]), **facts}


def _pasted(name: str) -> Any:
    def localiser(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[Any, dict[str, Any]]:
        from dhdiff_ray.detector import baselines

        _, normals, _ = read_real(config, [s for s in split.train if s.is_good], tell)
        count = sum(not sample.is_good for sample in split.train)
        images, masks = getattr(baselines, name)(normals, count, config.run.seed)
        model, facts = trained(config, split, tell, images, masks)
        return model, {"n_pasted": count, **facts}

    return localiser


def _normal_only(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[Any, dict[str, Any]]:
    from dhdiff_ray.detector.baselines import NormalOnly

    _, normals, _ = read_real(config, [s for s in split.train if s.is_good], tell)
    tell(config.detect.steps)
    return NormalOnly(normals).predict, {"n_normal": len(normals)}


TRAINED = {
    "synthetic": _network(synthetic_localiser),
    "real": _network(real_localiser),
    "real_synthetic": _network(_both),
    "cutpaste": _network(_pasted("cut_paste")),
    "draem": _network(_pasted("perlin_paste")),
    "normal": _normal_only,
}
"""How each kind of detector comes about."""


def read_real(config: Config, samples: Sequence[Sample], tell: Teller) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """Real images and masks at the run's resolution."""
    return read_many(samples, config.data.resolution, config.data.skip_bad, tell.warn)


def read_test(config: Config, split: Split, tell: Teller) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """The test half, each image once, with all of its defects."""
    return read_real(config, whole_images(split.test), tell)


def stack_pairs(folder: RunFolder, rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, h, w, 3) and masks (n, h, w) of metadata rows."""
    pairs = [read_pair(folder, row) for row in rows]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def split_digest(split: Split) -> str:
    """Hash of which image, by name and content, lies on which side."""
    return split.digest


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """The figures a person wants to see go by."""
    names = ("image_auroc", "pixel_auroc", "pixel_ap")
    flat = {f"{kind}_{name}": part[name] for kind, part in found.items() if isinstance(part, dict) for name in names}
    return {**flat, **{name: value for name, value in found.items() if not isinstance(value, dict)}}
