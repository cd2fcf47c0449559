"""The paper's check: per category a localiser trained on made pairs, and one on real ones, both tested (section IV-D).

Decided: both see the same number of defective images per defect, the same normal images, steps and seed, and are tested
on the same held-out half, which nothing is selected on. The one trained on real images is kept in the run with the
conditions it was trained under; ``score`` uses it as the oracle of pair alignment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.split import Split
from dhdiff_ray.data.writer import read_pair, read_pair_rows, write_card
from dhdiff_ray.on_ray.entry import entry
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.pool import side_by_side
from dhdiff_ray.on_ray.run import category_names, check_same_split, run_folder, stored_split
from dhdiff_ray.records import Sample
from dhdiff_ray.storage import RunFolder

if TYPE_CHECKING:
    from dhdiff_ray.detector.unet import Localiser

EVENT_SECONDS = 1.0
RESULT = "detection.json"


def main(config: Config, resume: bool = False) -> int:
    """Train and test every category's localisers; 0, or 1 if a category failed."""
    folder = run_folder(config)
    kinds = ("synthetic", "real") if config.detect.compare_real else ("synthetic",)
    with Events(folder, "detect") as events:
        split = stored_split(folder, config.data.root, config)
        categories = category_names(config, split)
        for category in categories:
            # Says what to run if there are none.
            check_same_split(read_pair_rows(folder, category), split, "a pair")
        with events.hub(every=0.5) as hub:
            task = localiser_task(config)(examine)
            values = config.model_dump(mode="json")
            found, errors = side_by_side(
                {(c, kind): task.remote(values, c, kind, hub) for c in categories for kind in kinds}
            )
        result: dict[str, Any] = {}
        for category in categories:
            wrong = [f"{kind}: {errors[category, kind]}" for kind in kinds if (category, kind) in errors]
            if wrong:
                events.emit("failed", category=category, message="; ".join(wrong))
                continue
            result[category] = {kind: found[category, kind] for kind in kinds}
            if "real" in kinds:
                made, real = (found[category, kind]["pixel_ap"] for kind in ("synthetic", "real"))
                result[category]["ratio_pixel_ap"] = made / real if made is not None and real else None
            events.emit("metric", category=category, **_short(result[category]))
        result["conditions"] = {
            "split_digest": split_digest(split),
            "test_holds_training_images": split.test_holds_training_images,
            "config_digest": config.digest(),
            "seed": config.run.seed,
            "resolution": config.data.resolution,
            **config.detect.model_dump(mode="json"),
        }
        folder.write_json(RESULT, result)
        write_card(folder)
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


def examine(values: dict[str, Any], category: str, kind: str, hub: Any) -> dict[str, Any]:
    """Train one localiser and test it on the held-out half: the task."""
    import torch

    from dhdiff_ray.detector.evaluate import evaluate

    torch.set_num_threads(1)
    config = Config.model_validate(values)
    folder = run_folder(config)
    split = Split.from_json(folder.read_json("split.json")).category(category)
    tell = Teller(hub, "detect", f"{category}, {kind}", config.detect.steps)
    start = time.monotonic()
    if kind == "real":
        model, facts = real_localiser(config, folder, split, tell)
    else:
        model, facts = synthetic_localiser(config, folder, split, tell)
    seconds = round(time.monotonic() - start, 2)
    _, images, masks = read_real(config, split.test, tell)
    return {**evaluate(model, images, masks), **facts, "seconds": seconds}


def real_localiser(config: Config, folder: RunFolder, split: Split, tell: Teller) -> tuple[Localiser, dict[str, Any]]:
    """The localiser trained on a category's real training half: the run's own, or a new one."""
    from dhdiff_ray.detector.train import train_localiser
    from dhdiff_ray.detector.unet import Localiser

    name = f"detectors/{split.categories[0]}/real"
    conditions = {
        "split_digest": split_digest(split),
        "seed": config.run.seed,
        "resolution": config.data.resolution,
        **config.detect.model_dump(mode="json", exclude={"compare_real"}),
    }
    if folder.exists(f"{name}.json"):
        known = folder.read_json(f"{name}.json")
        if known["conditions"] == conditions:
            tell(config.detect.steps)
            return Localiser.from_bytes(folder.read_bytes(f"{name}.safetensors")), {"n_train": known["n_train"]}
    defective, images, masks = read_real(config, [s for s in split.train if not s.is_good], tell)
    _, normals, _ = read_real(config, [s for s in split.train if s.is_good], tell)
    model = train_localiser(images, masks, normals, config.detect, config.run.seed, tell)
    folder.delete(f"{name}.json")  # never old conditions beside new weights
    folder.write_bytes(f"{name}.safetensors", model.to_bytes())
    folder.write_json(f"{name}.json", {"conditions": conditions, "n_train": len(defective)})
    return model, {"n_train": len(defective)}


def synthetic_localiser(
    config: Config, folder: RunFolder, split: Split, tell: Teller
) -> tuple[Localiser, dict[str, Any]]:
    """The localiser trained on made pairs alone, at most as many of each defect as there are real ones to train on."""
    from dhdiff_ray.detector.train import train_localiser

    counts: dict[str, int] = {}
    for sample in split.train:
        counts[sample.defect] = counts.get(sample.defect, 0) + 1
    rows = [r for r in read_pair_rows(folder, split.categories[0]) if r["index"] < counts.get(r["defect"], 0)]
    images, masks = stack_pairs(folder, rows)
    _, normals, _ = read_real(config, [s for s in split.train if s.is_good], tell)
    model = train_localiser(images, masks, normals, config.detect, config.run.seed, tell)
    return model, {"n_pairs": len(rows)}


def read_real(config: Config, samples: Sequence[Sample], tell: Teller) -> tuple[list[Sample], np.ndarray, np.ndarray]:
    """Real images and masks at the run's resolution."""
    return read_many(samples, config.data.resolution, config.data.skip_bad, tell.warn)


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


if __name__ == "__main__":
    from dhdiff_ray.on_ray import detect  # what is sent to actors must have a name that they can import

    entry(detect.main)
