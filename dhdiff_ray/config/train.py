"""The knobs of training: what is optimised, how, by how many workers, and where figures go."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dhdiff_ray.config.base import First, Frozen, Research


class TrainConfig(Frozen):
    """Optimisation (section IV-B)."""

    steps: First[int] = Field(default=1000, ge=1)
    """Optimiser steps per category."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate at its peak; the paper uses 1e-4."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly from zero."""
    decay: Literal["none", "cosine"] = "none"
    """What the learning rate does after the warm-up."""
    global_batch_size: First[int] = Field(default=32, ge=1)
    """Samples per optimiser step over all workers; the paper uses 32."""
    workers: First[int | tuple[int, int]] = 1
    """Workers per category, each a DeepSpeed engine. ``[least, most]`` is elastic: as many as there is room for."""
    resize_seconds: float = Field(default=60, ge=1)
    """With elastic ``workers``: seconds between looks for more room. To grow, a training goes back to its last
    checkpoint."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores one worker may use."""
    gpus_per_worker: First[float] = Field(default=0, ge=0)
    """GPUs one worker asks for."""
    adapt: First[Literal["full", "lora"]] = "full"
    """What is trained of a backbone: everything, or low-rank adapters and the layers that are new. Over a foundation of
    ours the model is then its adapters alone."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory for about a third more time."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; stage 3 also shards the weights and needs ``ema_decay = 0``."""
    precision: First[Literal["fp32", "bf16"]] = "fp32"
    """Arithmetic of forward and backward; weights and their average stay fp32."""
    prediction: Research[Literal["epsilon", "v"]] = "epsilon"
    """What the network predicts; Eq. 8 has epsilon."""
    noise_schedule: Research[Literal["scaled_linear", "cosine"]] = "scaled_linear"
    """Noise schedule; scaled_linear is Stable Diffusion's."""
    noise: Research[Literal["white", "texture"]] = "white"
    """Noise on image latents. ``white``: as in the paper. ``texture``: noise that looks like good product and fits to
    what surrounds a raw mask, and a filter that draws defects from their masks; not on a Stable Diffusion."""
    defect_weight: Research[float] = Field(default=0, ge=0)
    """Weight of an extra loss on the defects alone, small and large ones alike; 0 is Eq. 8 alone, as in the paper."""
    reference: Research[Literal["defect", "background", "full", "none"]] = "defect"
    """Reference image: the raw-mask cells kept, removed, the whole image, or nothing (Fig. 4: kept)."""
    reference_noise: Research[Literal["same", "independent", "clean"]] = "independent"
    """Noise on the reference latent; the paper's ``same`` gives the target away (docs/decisions.md)."""
    clean_background: Research[float] = Field(default=0.0, ge=0, le=1)
    """Share of training pairs that are noised and judged only inside a raw mask, as ``background = clean`` draws."""
    window: Research[int] = Field(default=0, ge=0)
    """Side in pixels of the window around the raw mask that is trained and sampled on; 0 is the whole image."""
    normal_fraction: Research[float] = Field(default=0.25, ge=0, le=1)
    """Share of a batch that is normal images with an empty mask."""
    text_dropout: Research[float] = Field(default=0.1, ge=0, le=1)
    """Chance that a prompt is dropped, for classifier-free guidance."""
    control_dropout: Research[float] = Field(default=0.5, ge=0, le=1)
    """Chance that the control mask is dropped, so that it stays optional."""
    fine_control: Research[float] = Field(default=0.25, ge=0, le=1)
    """Share of the control masks that outline the defect, as a detailed mask does, instead of showing its cells."""
    reference_dropout: Research[float] = Field(default=0.1, ge=0, le=1)
    """Chance that the reference is dropped, so that it stays optional."""
    flips: bool = False
    """Mirror images and masks at random; only right where a mirrored product is a product."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights that are published; 0 publishes the last weights."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints that a run can resume from."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept per category."""
    max_failures: int = Field(default=2, ge=0)
    """Worker failures a category survives by resuming from its last checkpoint."""
    step_seconds: float = Field(default=0, ge=0)
    """Longest a step may take before its worker is ended and training goes on from the last checkpoint; 0 follows the
    steps so far."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where each step's figures also go, beside the run's ``metrics/<category>.jsonl``; each is an extra to install."""

    @property
    def least_workers(self) -> int:
        """Workers that a category cannot do without."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Workers that a category has where there is room."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while a category trains."""
        return not isinstance(self.workers, int)

    @field_validator("noise")
    @classmethod
    def _check_noise(cls, value: str, info: ValidationInfo) -> str:
        """Only a velocity of 0 is a surface without a defect."""
        if value == "texture" and info.data.get("prediction") != "v":
            raise ValueError("textured noise is for networks that predict the velocity; set train.prediction = v too")
        return value

    @field_validator("workers", mode="before")
    @classmethod
    def _check_workers(cls, value: Any, info: ValidationInfo) -> Any:
        """One line for a number or a range, where pydantic would have one for each part of the union."""
        bounds = list(value) if isinstance(value, list | tuple) else [value, value]
        numbers = len(bounds) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in bounds)
        if not numbers or not 1 <= bounds[0] <= bounds[1]:
            raise ValueError("give a number of workers from 1 on, or [least, most] with 1 <= least <= most, as [1, 4]")
        rows = info.data.get("global_batch_size")
        if rows is not None and bounds[1] > rows:
            raise ValueError(
                f"a batch has train.global_batch_size = {rows} rows, one for each worker at least; "
                f"use at most {rows} workers, or a larger batch"
            )
        return value
