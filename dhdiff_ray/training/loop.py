"""The training loop, given an engine and a ``report``, and a category's training whole (section IV-B).

Knows neither Ray nor DeepSpeed: :func:`train_category` gives, for tables of runs, benchmarks and notebooks, the weights
that DeepSpeed gives on one worker, without its start-up and without checkpoints.

Decided: the learning rate is a function of the step, and so is every batch, so that resuming needs no state but
weights, moments and the averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from dhdiff_ray.config import TrainConfig
from dhdiff_ray.data.images import read_many
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.batches import Batch
from dhdiff_ray.training.build import build, build_source, fit_look
from dhdiff_ray.training.checkpoint import is_trained, model_facts, publish
from dhdiff_ray.training.step import Objective

TOLD = ("weights_sha256", "parameters", "last_loss")
"""What of a published model's facts stands beside its pairs."""


class Engine(Protocol):
    """What the loop asks of DeepSpeed's engine, or of :class:`PlainEngine`."""

    module: Objective
    optimizer: torch.optim.Optimizer

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and log of a batch."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss."""

    def step(self) -> None:
        """Clip, update, clear the gradients."""


class Batches(Protocol):
    """Where batches come from: :class:`~dhdiff_ray.training.batches.BatchSource`, or one over shards."""

    def draw(self, step: int, total: int, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's part of one step's ``total`` rows."""
        ...


class PlainEngine:
    """The same on one process with plain PyTorch, for tests and notebooks."""

    def __init__(self, objective: Objective, config: TrainConfig) -> None:
        self.module = objective
        self.clip = config.gradient_clip
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            objective.trained_parameters(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and log of a batch."""
        return self.module(batch)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss."""
        loss.backward()

    def step(self) -> None:
        """Clip, update, clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.module.trained_parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, counted from 0."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay == "cosine":
        rate *= 0.05 + 0.95 * (1 + math.cos(math.pi * step / config.steps)) / 2
    return rate


def new_average(objective: Objective, config: TrainConfig) -> EMAModel | None:
    """Averaged weights, or None where ``ema_decay`` is 0."""
    if config.ema_decay == 0:
        return None
    return EMAModel(
        objective.trained_parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.8, foreach=True
    )


def over_workers(parts: dict[str, Tensor], world_size: int) -> dict[str, float]:
    """The log of the whole batch: the mean over workers, each of which has looked at its rows alone."""
    values = torch.stack([value.detach().float() for value in parts.values()])
    if world_size > 1:
        torch.distributed.all_reduce(values)
        values /= world_size
    return dict(zip(parts, values.tolist(), strict=True))


def fit(
    engine: Engine,
    source: Batches,
    config: TrainConfig,
    *,
    average: EMAModel | None,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_checkpoint: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train from step ``start`` to ``config.steps``.

    Args:
        engine: holds an :class:`Objective`.
        source: where batches come from.
        config: the training configuration.
        average: averaged weights to keep up to date.
        start: steps already done.
        rank: this worker's number.
        world_size: workers.
        on_step: called with the steps done and the log of the step.
        on_checkpoint: called every ``checkpoint_every`` steps and after the last.

    Returns:
        The log of the last step.

    Raises:
        ValueError: more workers than rows of a batch, or the loss is not finite.
    """
    if config.global_batch_size < world_size:
        raise ValueError(
            f"train.global_batch_size = {config.global_batch_size} has no row for each of {world_size} workers; "
            f"use at least {world_size}, or fewer train.workers"
        )
    torch.set_flush_denormal(True)  # zero-initialised layers make denormals, which are slow on a CPU
    device = next(engine.module.parameters()).device
    log: dict[str, float] = {}
    for step in range(start, config.steps):
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        loss, parts = engine(source.draw(step, config.global_batch_size, rank, world_size).to(device))
        log = over_workers(parts, world_size)
        if not math.isfinite(log["loss"]):
            raise ValueError(
                f"the loss is {log['loss']} at step {step + 1}; lower train.learning_rate or use train.precision = fp32"
            )
        engine.backward(loss)
        engine.step()
        if average is not None:
            average.step(engine.module.trained_parameters())
        done = step + 1
        if on_step is not None:
            on_step(done, log)
        if on_checkpoint is not None and (done % config.checkpoint_every == 0 or done == config.steps):
            on_checkpoint(done, log)
    return log


def train_category(
    run: Run, category: str, warn: Callable[[str], None], on_step: Callable[[int, dict[str, float]], None] | None = None
) -> dict[str, object]:
    """Train and publish a category's model, where that is not done.

    Args:
        run: its split is written.
        category: which one.
        warn: told of images that are left out.
        on_step: called with the steps done and the log of the step.

    Returns:
        Hash of the weights, number of weights, the last loss.

    Raises:
        ValueError: the loss is not finite, or the images cannot be read.
    """
    config, folder = run.config, run.folder
    if not is_trained(folder, category):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        data = config.data
        samples, images, masks = read_many(run.category(category).train, data.resolution, data.skip_bad, warn)
        parts = build(config, samples, images)
        parts.objective.to(device)
        source = build_source(parts, config, samples, images, masks, folder=folder, category=category, device=device)
        fit_look(parts, source)
        average = new_average(parts.objective, config.train)
        engine = PlainEngine(parts.objective, config.train)
        last = fit(engine, source, config.train, average=average, on_step=on_step)
        weights = sum(p.numel() for p in parts.objective.parameters())
        facts = {**run.training_facts(category, len(samples)), "parameters": weights, "last_loss": last["loss"]}
        publish(parts, average, run, category, facts)
    marker = model_facts(folder, category)
    return {name: marker[name] for name in TOLD}
