"""The loop that runs in each worker of one category: a DeepSpeed engine around the objective (section IV-B).

Decided: Ray has made the process group, DeepSpeed joins it; EMA is kept outside the engine on rank 0, taken from the
weights themselves, which are fp32 at every ``train.precision``; ``report`` only with a checkpoint, since each report
waits for the controller's poll.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray.train

from dhdiff_ray.config import Config
from dhdiff_ray.data.images import read_many
from dhdiff_ray.on_ray import meters
from dhdiff_ray.on_ray.verbs.checkpoints import Stored, last_checkpoint, restore, save
from dhdiff_ray.run.run import published_facts, run_folder, stored_split
from dhdiff_ray.training.trackers import Trackers

EVENT_SECONDS = 1.0


def train_worker(settings: dict[str, Any]) -> None:
    """Train one category on this worker; rank 0 publishes the weights."""
    # Ray's controller imports this module too, to find the function: what only the worker needs is imported here.
    import torch

    from dhdiff_ray.model.precision import knows_bf16
    from dhdiff_ray.training.build import build, build_source, fit_look
    from dhdiff_ray.training.checkpoint import publish
    from dhdiff_ray.training.loop import fit, learning_rate, new_average

    config = Config.model_validate(settings["config"])
    refuse_what_cannot_be_averaged(config)
    category, hub = settings["category"], settings["hub"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if not torch.cuda.is_available():
        torch.set_num_threads(config.train.cpus_per_worker)

    folder = run_folder(config)
    split = stored_split(folder, config.data.root, config).category(category)

    def tell(**event: Any) -> None:
        if rank == 0:
            hub.emit.remote({"verb": "train", "category": category, "time": round(time.time(), 3), **event})

    if config.train.precision == "bf16" and not knows_bf16():
        tell(
            event="warning",
            message="this processor has no bf16 instructions: a step may take many times as long as with "
            "train.precision=fp32",
        )

    samples, images, masks = read_many(
        split.train, config.data.resolution, config.data.skip_bad, lambda m: tell(event="warning", message=m)
    )
    parts = build(config, samples, images)
    with last_checkpoint(config.train.zero_stage, world_size) as stored:
        engine = deepspeed_engine(parts.objective, config, world_size, stored)
        average = new_average(parts.objective, config.train) if rank == 0 else None
        start = restore(engine, average, stored)
    if config.train.is_elastic:
        tell(event="workers", workers=world_size, done=start)
    where = {"folder": folder, "category": category, "device": engine.device}
    last = [time.monotonic()]

    def is_time(done: int, total: int) -> bool:
        now = time.monotonic()
        if now - last[0] < EVENT_SECONDS and done < total:
            return False
        last[0] = now
        return True

    def on_encoded(done: int, total: int) -> None:
        if is_time(done, total):
            tell(event="progress", category=f"{category}, latents", done=done, total=total)

    if rank > 0:
        torch.distributed.barrier()  # what is cached in the run is computed by one and read by all
    source = build_source(parts, config, samples, images, masks, **where, on_progress=on_encoded)
    if rank == 0 and world_size > 1:
        torch.distributed.barrier()
    fit_look(parts, source)
    if average is not None:
        average.to(engine.device)
    trackers = Trackers(config, category, folder, start, tell) if rank == 0 else None
    recent: list[float] = []

    def on_step(done: int, log: dict[str, float]) -> None:
        recent.append(log["loss"])
        if trackers is not None:
            trackers.log(done, {**log, "learning_rate": learning_rate(done - 1, config.train), "workers": world_size})
        if is_time(done, config.train.steps):
            loss = round(sum(recent) / len(recent), 5)
            tell(event="progress", done=done, total=config.train.steps, loss=loss)
            recent.clear()

    def on_checkpoint(done: int, log: dict[str, float]) -> None:
        if trackers is not None:
            trackers.flush()
        save(engine, average, done, log, rank, world_size)

    fit(
        engine,
        source,
        config.train,
        average=average,
        start=start,
        rank=rank,
        world_size=world_size,
        on_step=on_step,
        on_checkpoint=on_checkpoint,
    )
    if trackers is not None:
        trackers.close()
    with whole_weights(parts.objective, config.train.zero_stage):
        if rank == 0:
            publish(parts, average, folder, category, config, published_facts(split, len(samples)))
            meters.memory(category)


def whole_weights(objective: Any, zero_stage: int) -> contextlib.AbstractContextManager[Any]:
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


def deepspeed_engine(objective: Any, config: Config, world_size: int, stored: Stored | None = None) -> Any:
    """A DeepSpeed engine in the process group that Ray made, to be given the checkpoint ``stored`` if there is one."""
    import deepspeed
    import torch
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
