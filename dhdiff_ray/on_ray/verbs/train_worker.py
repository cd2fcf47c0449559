"""The loop that runs in each worker of one category: a DeepSpeed engine around the objective (section IV-B).

Decided: Ray has made the process group, DeepSpeed joins it; EMA is kept outside the engine on rank 0, taken from the
weights themselves, which are fp32 at every ``train.precision``; ``report`` only with a checkpoint, since each report
waits for the controller's poll. Only workers import this module (see ``train.work``); the others need no torch.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.train
import torch
from diffusers.training_utils import EMAModel

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.model.precision import knows_bf16
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.deadline import Watchdog
from dhdiff_ray.on_ray.events import PROGRESS_SECONDS, Hub
from dhdiff_ray.on_ray.verbs.checkpoints import Stored, last_checkpoint, restore, save
from dhdiff_ray.records import Sample
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.build import Parts, build, build_source, fit_look
from dhdiff_ray.training.checkpoint import publish
from dhdiff_ray.training.loop import Batches, fit, learning_rate, new_average
from dhdiff_ray.training.step import Objective
from dhdiff_ray.training.trackers import Trackers

Pictures = tuple[list[Sample], np.ndarray, np.ndarray]
"""Training samples, their images uint8 (n, h, w, 3) and their masks uint8 (n, h, w)."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train one category on this worker; rank 0 publishes the weights.

    Args:
        settings: ``run``, ``category``, and ``hub``, where events go.
    """
    # 1. Join the others.
    context = ray.train.get_context()
    kind = kind_of(settings["run"].config)
    worker = kind(**settings, rank=context.get_world_rank(), world_size=context.get_world_size())
    run, category, t = worker.run, worker.category, worker.run.config.train
    refuse_what_cannot_be_averaged(run.config)
    worker.set_up()
    # 2. Read the images.
    pictures = worker.read()
    # 3. Build the model and go on from its last checkpoint.
    parts = worker.build(pictures)
    engine, average, start = worker.resume(parts)
    # 4. Encode what is encoded once.
    progress = Progress(worker)
    source = worker.encode(parts, pictures, engine.device, progress)
    if average is not None:
        average.to(engine.device)
    # 5. Train.
    trackers = Trackers(run, category, start, worker.tell) if worker.leads else None
    watchdog = Watchdog(t.step_seconds, worker.warn)

    def on_step(done: int, log: dict[str, float]) -> None:
        watchdog.step()
        if trackers is not None:
            trackers.log(done, {**log, "learning_rate": learning_rate(done - 1, t), "workers": worker.world_size})
        progress.trained(done, log["loss"])

    def on_checkpoint(done: int, log: dict[str, float]) -> None:
        if trackers is not None:
            trackers.flush()
        with watchdog.between_steps():
            save(engine, average, done, log, worker.rank, worker.world_size)

    place: Any = {"rank": worker.rank, "world_size": worker.world_size}
    with watchdog:
        fit(engine, source, t, average=average, start=start, on_step=on_step, on_checkpoint=on_checkpoint, **place)
    if trackers is not None:
        trackers.close()
    # 6. Publish.
    with whole_weights(parts.objective, t.zero_stage):
        if worker.leads:
            publish(parts, average, run, category, worker.facts(pictures))
            meters.memory(category)


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a category together."""

    run: Run
    category: str
    hub: Hub
    rank: int
    world_size: int

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which reports, tracks, averages and publishes."""
        return self.rank == 0

    def tell(self, **event: Any) -> None:
        """Send an event, on rank 0 alone."""
        if self.leads:
            about = {"verb": "train", "category": self.category, "time": round(time.time(), 3)}
            self.hub.emit.remote({**about, **event})

    def set_up(self) -> None:
        """Use the cores that were given, and warn if they are slow."""
        t = self.run.config.train
        if not torch.cuda.is_available():
            torch.set_num_threads(t.cpus_per_worker)
        if t.precision == "bf16" and not knows_bf16():
            slow = "this processor has no bf16 instructions: a step may take many times as long as with "
            self.warn(slow + "train.precision=fp32")

    def warn(self, message: str) -> None:
        """Send a warning, on rank 0 alone."""
        self.tell(event="warning", message=message)

    def read(self) -> Pictures:
        """The training images, of a split that was checked."""
        data = self.run.config.data
        samples = self.run.check_split(self.category).train
        return read_many(samples, data.resolution, data.skip_bad, self.warn)

    def build(self, pictures: Pictures) -> Parts:
        """The model as it starts."""
        return build(self.run.config, *pictures[:2])

    def resume(self, parts: Parts) -> tuple[Any, EMAModel | None, int]:
        """DeepSpeed's engine, the averaged weights of the one that leads, and the steps done."""
        t = self.run.config.train
        place = self.run.folder.below("checkpoints").below(self.category)
        warn = lambda message: self.tell(event="warning", message=message)  # noqa: E731
        with last_checkpoint(place, t.zero_stage, self.world_size, self.rank, warn) as stored:
            engine = deepspeed_engine(parts.objective, self.run.config, self.world_size, stored)
            average = new_average(parts.objective, t) if self.leads else None
            start = restore(engine, average, stored)
        if t.is_elastic:
            self.tell(event="workers", workers=self.world_size, done=start)
        return engine, average, start

    def encode(self, parts: Parts, pictures: Pictures, device: Any, progress: Progress) -> Batches:
        """Where batches come from; what is cached in the run is computed by one and read by all."""
        if not self.leads:
            torch.distributed.barrier()
        place: Any = {"folder": self.run.folder, "category": self.category, "device": device}
        source = build_source(parts, self.run.config, *pictures, **place, on_progress=progress.encoded)
        if self.leads and self.world_size > 1:
            torch.distributed.barrier()
        fit_look(parts, source)
        return source

    def facts(self, pictures: Pictures) -> dict[str, Any]:
        """What is recorded beside the model."""
        return self.run.training_facts(self.category, len(pictures[0]))


def kind_of(config: Config) -> type[Worker]:
    """What reads and feeds: one category's images in memory, or a foundation's pool."""
    if not config.sources:
        return Worker
    from dhdiff_ray.on_ray.verbs.pooled import PoolWorker

    return PoolWorker


class Progress:
    """Tells how far a worker is, at most once a second and at each end."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._last = time.monotonic()
        self._losses: list[float] = []

    def encoded(self, done: int, total: int) -> None:
        """Report how many images are encoded."""
        if self._is_time(done, total):
            self.worker.tell(event="progress", category=f"{self.worker.category}, latents", done=done, total=total)

    def trained(self, done: int, loss: float) -> None:
        """Report the steps done and the mean loss since the last report."""
        self._losses.append(loss)
        steps = self.worker.run.config.train.steps
        if self._is_time(done, steps):
            mean = round(sum(self._losses) / len(self._losses), 5)
            self.worker.tell(event="progress", done=done, total=steps, loss=mean)
            self._losses.clear()

    def _is_time(self, done: int, total: int) -> bool:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS and done < total:
            return False
        self._last = now
        return True


def whole_weights(objective: Objective, zero_stage: int) -> contextlib.AbstractContextManager[Any]:
    """While open, every rank holds all weights, which ZeRO-3 shards otherwise."""
    if zero_stage < 3:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(objective.parameters()))


def refuse_what_cannot_be_averaged(config: Config) -> None:
    """ZeRO-3 leaves no rank with all weights to average.

    Raises:
        ValueError: it says what to set.
    """
    if config.train.zero_stage == 3 and config.train.ema_decay:
        raise ValueError("train.zero_stage = 3 shards the weights that the average needs: set train.ema_decay=0")


def deepspeed_engine(objective: Objective, config: Config, world_size: int, stored: Stored | None = None) -> Any:
    """A DeepSpeed engine in the process group that Ray made, to be given the checkpoint ``stored`` if there is one."""
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    # Training reduces through gloo or NCCL; without this line a minute goes into compiling an unused CPU extension.
    __compatible_ops__["deepspeed_shm_comm"] = False
    t = config.train
    parameters = objective.trained_parameters()
    optimizer = torch.optim.AdamW(parameters, lr=t.learning_rate, weight_decay=0.0, fused=True)
    zero: dict[str, Any] = {"stage": t.zero_stage}
    if t.zero_stage == 3 and stored is not None:
        # DeepSpeed 0.19 loads parameters it would not shard so that the next backward pass finds them empty.
        zero["stage3_param_persistence_threshold"] = 0
    engine, *_ = deepspeed.initialize(
        model=objective,
        optimizer=optimizer,
        config={
            # Only for DeepSpeed's own count: a rank may have one row fewer, and what it adds up is the mean over ranks.
            "train_micro_batch_size_per_gpu": -(-t.global_batch_size // world_size),
            "gradient_accumulation_steps": 1,
            "gradient_clipping": t.gradient_clip,
            "steps_per_print": 10**9,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "checkpoint": {"load_universal": stored is not None and stored.is_universal},
        },
    )
    return engine
