"""A foundation's training images as shards in the run, written once: ``cache/foundation/<key>/`` (not in the paper).

Decided: a shard holds images of one source, normal ones or anomalies, some hundred rows of every category's and
defect's share, so that a few open shards are a picture of the whole pool. Where encoding costs nothing it holds pixels,
else latents. It is written whole, then its hash beside it; ``pool.json``, last, names them all. One that is there is
kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load, save

from dhdiff_ray.config import FOUNDATION_NAME, Config
from dhdiff_ray.data.images import ImageError, read_many
from dhdiff_ray.data.regions import raw_mask
from dhdiff_ray.records import Sample
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.sources import Part, digest_of, parts_of
from dhdiff_ray.training.cuts import FLIPPED

if TYPE_CHECKING:  # who reads pixels needs no torch
    from dhdiff_ray.model.latents import Autoencoder

LAYOUT = 1
"""Counts up when what a shard holds changes."""
MOST_ROWS, LEAST_ROWS = 256, 16
"""Rows of a shard."""
SHARD_BYTES = 32 * 2**20
"""Size of a shard that is aimed at where images are large."""


@dataclass(frozen=True)
class ShardPlan:
    """What one shard is made from."""

    at: int
    source: int
    normal: bool
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a shard that is written."""

    file: str
    sha256: str
    source: int
    normal: bool
    rows: int
    autoencoder: str = ""
    """Hash of the weights that encoded it; empty where it holds pixels."""
    left_out: tuple[str, ...] = ()
    """What was wrong with images that are not in it (``data.skip_bad``)."""


@dataclass(frozen=True)
class Shard:
    """The rows of one shard in memory."""

    source: int
    normal: bool
    masks: np.ndarray  # uint8 (n, h, w)
    prompts: np.ndarray  # (n,), numbers in ``Pool.prompts``
    images: np.ndarray  # uint8 (n, h, w, 3); without channels where there are latents
    latents: dict[str, np.ndarray] | None  # see ``training.cache.encoded``


@dataclass(frozen=True)
class Pool:
    """All shards of a run, as they are named in ``pool.json``; holds no image."""

    folder: RunFolder
    weights: tuple[float, ...]
    """How often each source is drawn from."""
    prompts: tuple[tuple[str, str], ...]
    """(category, defect) of each prompt."""
    shards: tuple[ShardFacts, ...]

    @property
    def images(self) -> int:
        """Images in all shards."""
        return sum(shard.rows for shard in self.shards)

    def check_autoencoder(self, vae: Autoencoder) -> None:
        """Refuse latents of another autoencoder.

        Raises:
            ValueError: it says what to remove.
        """
        from dhdiff_ray.model.taef2 import weights_digest

        if any(shard.autoencoder not in ("", weights_digest(vae)) for shard in self.shards):
            raise ValueError(f"the shards in {self.folder.uri} were encoded by another autoencoder than this; {REMEDY}")

    def read(self, at: int) -> Shard:
        """One shard.

        Raises:
            ValueError: it is gone or damaged; it is named.
        """
        facts = self.shards[at]
        try:
            data = self.folder.read_bytes(facts.file)
        except OSError as error:
            raise ValueError(f"{self.folder.uri}/{facts.file} cannot be read ({error}); {REMEDY}") from None
        if hashlib.sha256(data).hexdigest() != facts.sha256:
            raise ValueError(f"{self.folder.uri}/{facts.file} is damaged; {REMEDY}")
        tables = load(data)
        masks, prompts = tables.pop("masks"), tables.pop("prompts")
        images = tables.pop("images", np.empty((*masks.shape, 0), np.uint8))
        return Shard(facts.source, facts.normal, masks, prompts, images, tables or None)


REMEDY = "remove the run's cache/foundation and add --resume: it is written anew"


class ShardWriter:
    """Writes shards, one a call; pickles, so that any process can be one.

    Args:
        run: is laid out.
        build_autoencoder: makes what encodes, and where it lies, when the first latents are asked for; None keeps
            pixels.
    """

    def __init__(self, run: Run, build_autoencoder: Callable[[], tuple[Autoencoder, Any]] | None = None) -> None:
        self.run, self.build_autoencoder = run, build_autoencoder
        parts = parts_of(run)
        self.names, self.place = [part.name for part in parts], place_of(run.config, parts)
        self.prompts = {name: at for at, name in enumerate(prompts_of(parts))}
        self.autoencoder: tuple[Autoencoder, Any] | None = None

    def __call__(self, plan: ShardPlan) -> ShardFacts:
        """Write a shard, unless it is there.

        Raises:
            ValueError: an image cannot be read; the source is named.
        """
        folder, name = self.run.folder, f"{self.place}/{plan.at:05d}"
        if folder.exists(f"{name}.json"):
            return _facts(folder.read_json(f"{name}.json"))
        data, left_out = self.run.config.data, []
        try:
            samples, images, masks = read_many(plan.samples, data.resolution, data.skip_bad, left_out.append)
        except ImageError as error:
            if not data.skip_bad:
                raise ValueError(f"the source {self.names[plan.source]}: {error}") from None
            samples = []
        facts = ShardFacts("", "", plan.source, plan.normal, len(samples), left_out=tuple(left_out))
        if samples:
            tables = self._tables(samples, images, masks)
            if self.autoencoder is not None:
                from dhdiff_ray.model.taef2 import weights_digest

                facts = replace(facts, autoencoder=weights_digest(self.autoencoder[0]))
            content = save({key: np.ascontiguousarray(value) for key, value in tables.items()})
            folder.write_bytes(f"{name}.safetensors", content)
            facts = replace(facts, file=f"{name}.safetensors", sha256=hashlib.sha256(content).hexdigest())
        folder.write_json(f"{name}.json", asdict(facts))
        return facts

    def _tables(self, samples: Sequence[Sample], images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
        prompts = np.array([self.prompts[s.category, s.defect] for s in samples], np.int32)
        tables = {"masks": masks, "prompts": prompts}
        if not has_latents(self.run.config):
            return tables | {"images": images}
        from dhdiff_ray.training.cache import encoded

        if self.autoencoder is None:
            assert self.build_autoencoder is not None
            self.autoencoder = self.build_autoencoder()
        raw = np.stack([raw_mask(mask, self.run.config.data.grid) for mask in masks])
        latents = encoded(images, masks, raw, self.run.config.train, *self.autoencoder)
        return tables | {name: table.numpy() for name, table in latents.items()}


Mapped = Callable[[Sequence[ShardPlan]], Iterable[ShardFacts]]
"""Writes shards, in any order and anywhere."""


def write_pool(run: Run, mapped: Mapped, tell: Callable[..., object] = lambda **_: None) -> Pool:
    """The pool of a run that is laid out: read, or written.

    Args:
        run: its sources are split.
        mapped: hands each plan to a :class:`ShardWriter`.
        tell: takes ``done`` and ``total`` images, and warnings.

    Raises:
        ValueError: a source has no image that can be read.
    """
    parts = parts_of(run)
    place = place_of(run.config, parts)
    if not run.folder.exists(f"{place}/pool.json"):
        plans, found = plan_shards(parts, run.config), []
        total = sum(len(plan.samples) for plan in plans)
        for facts in mapped(plans):
            found.append(facts)
            for message in facts.left_out:
                tell(event="warning", message=f"left out: {message}")
            tell(event="progress", done=sum(f.rows + len(f.left_out) for f in found), total=total)
        shards = sorted((facts for facts in found if facts.rows), key=lambda facts: facts.file)
        for source, part in enumerate(parts):
            for normal, what in ((True, "normal image"), (False, "anomaly")):
                if not any((s.source, s.normal) == (source, normal) for s in shards):
                    raise ValueError(f"the source {part.name}: not one {what} can be read; see the warnings")
        run.folder.write_json(f"{place}/pool.json", {"shards": [asdict(facts) for facts in shards]})
    return read_pool(run)


def read_pool(run: Run) -> Pool:
    """The pool of a run whose shards are written.

    Raises:
        OSError: they are not.
    """
    parts = parts_of(run)
    values = run.folder.read_json(f"{place_of(run.config, parts)}/pool.json")["shards"]
    weights, shards = tuple(part.weight for part in parts), tuple(_facts(facts) for facts in values)
    return Pool(run.folder, weights, tuple(prompts_of(parts)), shards)


def plan_shards(parts: Sequence[Part], config: Config) -> list[ShardPlan]:
    """Which image goes into which shard: a function of the splits, the seed and the images' size."""
    plans: list[ShardPlan] = []
    most = rows_of_shard(config)
    for source, part in enumerate(parts):
        for normal in (False, True):
            rng = np.random.default_rng((config.run.seed, source, int(normal)))
            samples = list(_dealt([s for s in part.split.train if s.is_good == normal], rng))
            count = -(-len(samples) // most)
            plans += [ShardPlan(len(plans) + at, source, normal, tuple(samples[at::count])) for at in range(count)]
    return plans


def rows_of_shard(config: Config) -> int:
    """Most rows of a shard: fewer where images are large, so that some may be open together."""
    pixels = config.data.resolution**2
    one = pixels * (1 + 6 * (len(FLIPPED) if config.train.flips else 1)) if has_latents(config) else 4 * pixels
    return min(MOST_ROWS, max(LEAST_ROWS, SHARD_BYTES // one))


def has_latents(config: Config) -> bool:
    """Whether the autoencoder costs enough to keep what it gives."""
    return bool(config.model.backbone) or config.model.autoencoder != "haar"


def prompts_of(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Every (category, defect) that is trained on, normal images' too, sorted."""
    return sorted({(sample.category, sample.defect) for part in parts for sample in part.split.train})


def place_of(config: Config, parts: Sequence[Part]) -> str:
    """Folder of the pool in the run: its name is a hash of everything that shards depend on."""
    facts: list[Any] = [LAYOUT, digest_of(parts), config.run.seed, config.data.resolution, config.data.skip_bad]
    if has_latents(config):
        m, t = config.model, config.train
        facts += [m.backbone, m.autoencoder, m.autoencoder_weights, t.reference, t.flips, config.data.grid]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return f"cache/{FOUNDATION_NAME}/{key}"


def _dealt(samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
    """Category by category and defect by defect, each shuffled: every n-th of them is a fair share."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.category, sample.defect), []).append(sample)
    for _, same in sorted(groups.items()):
        yield from (same[i] for i in rng.permutation(len(same)))


def _facts(values: dict[str, Any]) -> ShardFacts:
    return ShardFacts(**{**values, "left_out": tuple(values["left_out"])})
